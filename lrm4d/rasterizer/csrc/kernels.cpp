// The stages for one instruction set: compiled once with nothing but LRM4D_KERNELS=baseline_kernels, and on x86 once
// more with -mavx2 -mfma. No standard library containers here: their code is shared by the linker between both.
#include "blending.h"
#include "layout.h"
#include "projection.h"

extern const Kernels LRM4D_KERNELS = {project, blend, blend_backward, project_backward};
