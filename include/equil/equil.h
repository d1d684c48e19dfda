// Equil: Channel Equilibrium networks, trained and run on any OpenCL device. A program needs no other header.
#ifndef EQUIL_EQUIL_H
#define EQUIL_EQUIL_H

#include "ahead.h"
#include "base.h"
#include "bench.h"
#include "data.h"
#include "device.h"
#include "graph.h"
#include "model.h"
#include "train.h"
#include "tune.h"

#endif
