/* Whether a stored training state is one that this runtime could have written: nothing of it is used before. */
#ifndef TT_CHECK_H
#define TT_CHECK_H

#include "tinytrain.h"

/* tt_model.check of a model that learns. */
tt_status tt_check(const tt_model *model, const tt_stored *stored);

#endif
