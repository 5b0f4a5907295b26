/* The prototype head's loss. It has no weights of its own: means are recomputed, because the layers move them. */
#ifndef TT_PROTOTYPE_LOSS_H
#define TT_PROTOTYPE_LOSS_H

#include "tt_learning.h"

extern const tt_head_learning tt_prototype_learning;

#endif
