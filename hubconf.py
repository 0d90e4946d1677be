"""Entry points of torch.hub: `torch.hub.load(PATH, "sa_resnet50", source="local")`."""

from sa_core import sa_resnet18, sa_resnet34, sa_resnet50, sa_resnet101

__all__ = ["sa_resnet18", "sa_resnet34", "sa_resnet50", "sa_resnet101"]
dependencies = ["torch", "torchvision"]
