/* The linear head's loss, and the steps of its weights. */
#ifndef TT_LINEAR_LOSS_H
#define TT_LINEAR_LOSS_H

#include "tt_learning.h"

extern const tt_head_learning tt_linear_learning;

#endif
