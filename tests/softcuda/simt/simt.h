// Device code on the host: what a .cu file needs to compile with g++, one thread of a block being one fiber.
//
//   g++ -x c++ -std=c++17 -include simt.h kernel.cu
//
// language.h  keywords, vector types            threads.h  threads, blocks, barriers, and how they are run
// numbers.h   integer and float intrinsics      warp.h     what the lanes of a warp do together
// atomics.h   atomics and fences                ptx.h      the functions of csrc/common/ptx.cuh
// registry.h  kernels by name                   races.h    accesses that nothing orders
//
// Blocks run one after the other, so shared memory is a thread-local variable of the OS thread that runs the launch.
// What it can see and what it cannot: see src/emulate/mod.rs.
#pragma once
#include "language.h"
#include "numbers.h"
#include "races.h"
#include "threads.h"
#include "warp.h"
#include "atomics.h"
#include "ptx.h"
#include "registry.h"
