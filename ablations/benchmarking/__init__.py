"""The verb `bench`: plans, measures and reports the costs of a sweep's variants."""
