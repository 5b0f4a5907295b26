/*
 * Keeping prototypes and training state in flash, safe against power cuts (docs/guide/saving.md).
 *
 *     static const tt_storage storage = {
 *         .erase = flash_erase, .program = flash_program, .read = flash_read, .slot_bytes = 2 * SECTOR,
 *         .erase_bytes = SECTOR, .program_bytes = 4,
 *     };
 *     if (net_load(&session, &storage) != TT_OK) { ... }  // at start-up; TT_ERR_EMPTY: a new device
 *     tt_status status = net_save(&session, &storage);    // after a training
 */
#ifndef TINYTRAIN_STORAGE_H
#define TINYTRAIN_STORAGE_H

#include "tinytrain.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Flash is programmed in whole blocks: no unit that can be programmed may be larger. */
#define TT_STORAGE_BLOCK 32

/* A slot's bytes: header, commit mark, and what the session holds, in whole blocks; a state may take less. */
#define TT_STATE_BYTES(payload) ((2u + ((payload) + TT_STORAGE_BLOCK - 1u) / TT_STORAGE_BLOCK) * TT_STORAGE_BLOCK)

/* Grows whenever the layout of a saved state, or the meaning of its bytes, changes. */
#define TT_STATE_VERSION 2

/*
 * Flash with room for two slots, the second directly behind the first, and the caller's driver for it. Offsets count
 * from the first slot. Functions return 0, anything else for a failure. No field but user may be 0.
 */
typedef struct tt_storage {
    /* Set the erase unit that begins at offset to 0xFF. */
    int (*erase)(void *user, uint32_t offset);
    /* Write erased memory; offset and bytes are multiples of TT_STORAGE_BLOCK, data of 4. Nothing is written twice. */
    int (*program)(void *user, uint32_t offset, const void *data, uint32_t bytes);
    /* Any offset, any number of bytes. */
    int (*read)(void *user, uint32_t offset, void *data, uint32_t bytes);
    void *user;             /* what the functions are given; may be NULL */
    uint32_t slot_bytes;    /* of each of the two: whole erase units, at least TT_STATE_BYTES, below 2^31 */
    uint32_t erase_bytes;   /* the erase unit: a multiple of TT_STORAGE_BLOCK */
    uint32_t program_bytes; /* the unit that is programmed at once: a power of two up to TT_STORAGE_BLOCK */
} tt_storage;

/*
 * Keep prototypes and training state. Whenever power fails, what the last finished call saved is still there, or the
 * new state is. After an error the session is unchanged, and so is the last state saved.
 */
tt_status tt_save(const tt_session *s, const tt_storage *storage);

/*
 * Replace prototypes and training state by the last state saved. It is used only where it is whole, belongs to this
 * model, and holds nothing that this runtime would not write: sizes, offsets and numbers are checked one by one. After
 * an error the session is as it was, with one exception: flash that reads differently a second time leaves factory
 * weights and no prototypes.
 */
tt_status tt_load(tt_session *s, const tt_storage *storage);

#ifdef __cplusplus
}
#endif

#endif
