// Equil: Channel Equilibrium networks, trained and run on any OpenCL device. A program needs no other
// header, but for opencl.h where it uses OpenCL itself.
#ifndef EQUIL_EQUIL_H
#define EQUIL_EQUIL_H

#include "ahead.h"
#include "base.h"
#include "bench.h"
#include "data.h"
#include "device.h"
#include "graph.h"
#include "model.h"
#include "session.h"
#include "train.h"
#include "tune.h"
#include "weights.h"

#endif
