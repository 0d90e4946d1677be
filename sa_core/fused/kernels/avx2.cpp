// One object file a library: extensions with the same source would overwrite each other's in a parallel build.
#include "kernels.cpp"
