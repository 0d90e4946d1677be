// A separate source file per library: extensions with the same source would overwrite each other's object file.
#include "kernels.cpp"
