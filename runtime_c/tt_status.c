#include "tinytrain.h"

const char *tt_status_text(tt_status status)
{
    switch (status) {
    case TT_OK:
        return "ok";
    case TT_ERR_ARGUMENT:
        return "a null pointer, an option outside its range, or a session that was not initialised";
    case TT_ERR_ALIGNMENT:
        return "a region does not start at a multiple of TT_ALIGNMENT";
    case TT_ERR_MEMORY:
        return "a region or a storage slot is too small";
    case TT_ERR_LABEL:
        return "a label is outside 0 .. classes - 1";
    case TT_ERR_FULL:
        return "a class has more than TT_MAX_SHOTS examples";
    case TT_ERR_POLICY:
        return "the model was compiled with a policy that does not do this";
    case TT_ERR_CANCELLED:
        return "the training was stopped; the training state is kept";
    case TT_ERR_EMPTY:
        return "nothing is stored";
    case TT_ERR_CORRUPT:
        return "what is stored is damaged";
    case TT_ERR_MODEL:
        return "what is stored belongs to another model";
    case TT_ERR_FORMAT:
        return "what is stored has another format version";
    case TT_ERR_STORAGE:
        return "the storage driver failed, or the flash does not keep what was written";
    case TT_ERR_MISSING:
        return "an enrolled class has no sample in the support set";
    }
    return "no status of this runtime";
}
