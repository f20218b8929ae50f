"""CPU kernels in C++, compiled for the machine's processor at the first start."""
