/* A training state in flash, read piece by piece before any of it is used. */
#ifndef TT_STORED_H
#define TT_STORED_H

#include "tinytrain_storage.h"

struct tt_stored {
    const tt_storage *storage;
    uint32_t offset; /* of the state's first byte */
    uint32_t bytes;  /* that are stored; zeros follow */
};

/* Offsets count from the state's first byte. */
tt_status tt_stored_read(const tt_stored *stored, uint32_t at, void *data, uint32_t bytes);

#endif
