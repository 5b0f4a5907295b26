/*
 * TinyTrain runtime: inference sessions, few-shot heads, training, and keeping what was learnt.
 *
 * One copy of the runtime serves any number of compiled models. A model is a const descriptor in
 * flash; a session is what varies, in memory the caller owns. Nothing here allocates, prints,
 * recurses or keeps state of its own. A session may be used by one thread at a time.
 *
 * Firmware normally calls the model's own functions (<model>.h), which wrap these.
 */
#ifndef TINYTRAIN_H
#define TINYTRAIN_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Generated sources refuse to compile against another version. */
#define TT_RUNTIME_VERSION 2

/* Memory banks one model's plan may use. */
#define TT_MAX_REGIONS 4

/* Every region must start at a multiple of this many bytes. */
#define TT_ALIGNMENT 16

/* Examples per class: sums of int8 embeddings then fit int16. */
#define TT_MAX_SHOTS 256

/* Fraction bits of tt_result.score. */
#define TT_SCORE_BITS 15

/* --- Status ---------------------------------------------------------------------------------- */

/* Errors are negative; a session stays usable after any of them. */
typedef enum tt_status {
    TT_OK = 0,
    TT_ERR_ARGUMENT = -1,  /* a null pointer, or a session that was not initialised */
    TT_ERR_ALIGNMENT = -2, /* a region does not start at a multiple of TT_ALIGNMENT */
    TT_ERR_MEMORY = -3,    /* a region is smaller than the plan needs, or a storage slot than the state */
    TT_ERR_LABEL = -4,     /* a label outside 0 .. classes - 1 */
    TT_ERR_FULL = -5,      /* the class already has TT_MAX_SHOTS examples */
    TT_ERR_POLICY = -6,    /* the model was compiled with --policy none and a head that does not learn */
    TT_ERR_CANCELLED = -7, /* the progress callback stopped the training; what was learnt so far is kept */
    TT_ERR_EMPTY = -8,     /* nothing is stored, or only a save that never finished */
    TT_ERR_CORRUPT = -9,   /* what is stored is damaged */
    TT_ERR_MODEL = -10,    /* what is stored belongs to another model */
    TT_ERR_FORMAT = -11,   /* what is stored has another format version */
    TT_ERR_STORAGE = -12   /* the storage driver failed, or the flash does not keep what was written */
} tt_status;

/* --- Model: generated, const, in flash ------------------------------------------------------- */

typedef struct tt_session tt_session;
typedef struct tt_learning tt_learning; /* tt_train.h */

typedef struct tt_model {
    const char *name;
    uint32_t region_count;
    uint32_t region_bytes[TT_MAX_REGIONS];
    uint32_t input_region, input_offset, input_bytes;
    uint32_t output_region, output_offset, output_bytes;
    uint32_t features_region, features_offset, features;
    int32_t features_zero; /* zero point of the embedding */
    uint32_t classes;      /* room for prototypes */
    void (*run)(uint8_t *const regions[]); /* input to output, all inside the regions */
    /* The head: the best of the classes with examples, and its score; label -1 where no class has any. */
    void (*classify)(const tt_session *s, const int8_t *features, int32_t *label, int32_t *score);
    const tt_learning *learning; /* NULL: compiled without training */
    uint32_t digest[2];          /* of all that gives a saved state its meaning */
} tt_model;

/* --- Session: the caller's --------------------------------------------------------------------*/

struct tt_session {
    const tt_model *model;              /* NULL until tt_init succeeds */
    uint8_t *regions[TT_MAX_REGIONS];   /* the caller's memory, at least model->region_bytes each */
    int16_t *sums;                      /* classes x features: sum of a class's embeddings */
    uint16_t *shots;                    /* classes: how many examples each sum holds */
};

/* A piece of the caller's memory. */
typedef struct tt_region {
    void *data;
    size_t bytes;
} tt_region;

typedef struct tt_result {
    int32_t label;          /* best class; before any enrolment the largest output; -1: no answer */
    /* Q15: --head prototype: the cosine; --head linear: the probability. Before any enrolment the output byte itself. */
    int32_t score;
    const int8_t *output;   /* the model's output, valid until the session's next call */
    const int8_t *features; /* the embedding, likewise */
} tt_result;

/* --- Training -------------------------------------------------------------------------------- */

/* How the channels that learn are chosen, where the model leaves it to the device (--policy tinytrain). */
typedef enum tt_selector {
    TT_SELECT_DEFAULT = 0,    /* as compiled: --selection */
    TT_SELECT_FISHER,         /* largest Fisher information; layers in the compiler's order */
    TT_SELECT_RANDOM,
    TT_SELECT_L2,             /* largest pretrained weights */
    TT_SELECT_LAYER_SCORE,    /* as Fisher, layers by their Fisher information per parameter and MAC */
    TT_SELECT_FISHER_RESAMPLE /* as Fisher; each epoch but the first draws channels anew, in proportion to it */
} tt_selector;

/* Samples that Fisher information is measured on, at most, where the options do not say. */
#define TT_FISHER_SAMPLES 16

/* Fields of 0: as compiled. */
typedef struct tt_select_options {
    tt_selector selector;
    uint32_t samples;    /* Fisher information is measured on, at most; 0: TT_FISHER_SAMPLES */
    uint32_t seed;       /* of the random selector */
    uint32_t pool_bytes; /* lists and deltas may take; 0: all that was planned */
    uint32_t macs;       /* of weight gradients in one step; 0: --macs, UINT32_MAX: no limit */
} tt_select_options;

/* Where features of samples may be kept, so that layers that never change run once per sample. The caller's:
 * RAM, external RAM or a file. slot: 0 .. samples * (copies + 1) - 1; stored before it is loaded, by the same training.
 * Any status but TT_OK ends the training. */
typedef struct tt_cache {
    tt_status (*store)(void *user, uint32_t slot, const int8_t *features, uint32_t bytes);
    tt_status (*load)(void *user, uint32_t slot, int8_t *features, uint32_t bytes);
    void *user;
    uint32_t copies; /* augmented ones of each sample, used in turn; at least 1 */
} tt_cache;

typedef struct tt_train_options {
    uint32_t epochs;
    /* Learning rate: how far, relative to its length, the first epoch may move a layer where every answer is wrong and
     * samples have nothing in common; falls to 0. 0: what suits the policy. */
    float rate;
    uint32_t seed; /* of the order in which samples are visited, of stochastic rounding, and of channels drawn anew */
    const tt_cache *cache; /* NULL: every sample runs through the whole network in every epoch */
} tt_train_options;

/* The epoch of a sample that is wanted as it is, without augmentation. */
#define TT_CLEAN (-1)

/*
 * The support set stays the caller's. get() writes sample `index` into input (input_bytes long) and its class
 * into label; where input is NULL only the label is wanted. epoch: which pass over the set this is, for the caller's
 * augmentation, or TT_CLEAN.
 * Any status but TT_OK ends the training with that status.
 */
typedef struct tt_samples {
    uint32_t count;
    tt_status (*get)(void *user, uint32_t index, int32_t epoch, int8_t *input, int32_t *label);
    void *user;
} tt_samples;

typedef struct tt_progress {
    uint32_t epoch, epochs, sample, samples;
    uint32_t saturated; /* updates that met the end of a delta's range so far */
    uint32_t error;     /* mean of 1 - p[label] over this epoch so far, 15 fraction bits */
} tt_progress;

/* Called after each sample; return nonzero to stop. */
typedef int tt_progress_fn(void *user, const tt_progress *progress);

/* --- Storage --------------------------------------------------------------------------------- */

/* Flash is programmed in whole blocks: no unit that can be programmed may be larger. */
#define TT_STORAGE_BLOCK 32

/* A slot's bytes: header, commit mark, and what the session holds, rounded up to whole blocks; a state may take less. */
#define TT_STATE_BYTES(payload) ((2u + ((payload) + TT_STORAGE_BLOCK - 1u) / TT_STORAGE_BLOCK) * TT_STORAGE_BLOCK)

/* Grows whenever the layout of a saved state, or the meaning of its bytes, changes. */
#define TT_STATE_VERSION 2

/*
 * Flash with room for two slots, the second directly behind the first, and the caller's driver for it. Offsets count
 * from the first slot. Functions return 0, anything else for a failure. docs/storage.md shows how to write one.
 */
typedef struct tt_storage {
    /* Set the erase unit that begins at offset to 0xFF. */
    int (*erase)(void *user, uint32_t offset);
    /* Write erased memory; offset and bytes are multiples of TT_STORAGE_BLOCK, data of 4. Nothing is written twice. */
    int (*program)(void *user, uint32_t offset, const void *data, uint32_t bytes);
    /* Any offset, any number of bytes. */
    int (*read)(void *user, uint32_t offset, void *data, uint32_t bytes);
    void *user;
    uint32_t slot_bytes;    /* of each of the two: whole erase units, at least TT_STATE_BYTES */
    uint32_t erase_bytes;   /* the erase unit: a multiple of TT_STORAGE_BLOCK */
    uint32_t program_bytes; /* the unit that is programmed at once: a power of two up to TT_STORAGE_BLOCK */
} tt_storage;

/* --- Functions ------------------------------------------------------------------------------- */

/* sums and shots: room for classes x features and classes entries; both are cleared. */
tt_status tt_init(tt_session *s, const tt_model *model, const tt_region *regions, int16_t *sums, uint16_t *shots);

/* Where the input lies inside the arena: fill it in place to save a copy. NULL before tt_init. */
int8_t *tt_input(const tt_session *s);

/* Run the network on input (input_bytes long; may be tt_input() itself) and classify. */
tt_status tt_infer(tt_session *s, const int8_t *input, tt_result *result);

/* Run the network and add the embedding to class label's prototype. */
tt_status tt_enroll(tt_session *s, const int8_t *input, int32_t label);

/* Drop all classes: prototypes, and what the head has learnt. What the layers have learnt stays. */
tt_status tt_forget(tt_session *s);

/* Drop everything learnt: factory weights, no prototypes. */
tt_status tt_unlearn(tt_session *s);

/*
 * Choose what learns this task, for models compiled with --policy tinytrain. Everything learnt before is dropped;
 * prototypes are those of the samples where Fisher information was measured, else there are none. Where it was not
 * done tt_train() does it, with options of 0 but its own seed, and at less cost: what both need it computes once.
 */
tt_status tt_select(tt_session *s, const tt_select_options *options, const tt_samples *samples);

/*
 * Learn the support set: recomputes all prototypes and updates the layers that the model's policy chose, and the
 * weights of a linear head. Earlier enrolments are replaced. progress may be NULL.
 */
tt_status tt_train(tt_session *s, const tt_train_options *options, const tt_samples *samples,
                   tt_progress_fn *progress, void *user);

/*
 * Keep prototypes and everything learnt. Whenever power fails, what the last finished call saved is still there, or
 * the new state is. After an error the session is unchanged, and so is the last state saved.
 */
tt_status tt_save(const tt_session *s, const tt_storage *storage);

/*
 * Replace prototypes and everything learnt by the last state saved. After an error the session is as it was, with one
 * exception: flash that reads differently a second time leaves factory weights and no prototypes.
 */
tt_status tt_load(tt_session *s, const tt_storage *storage);

#ifdef __cplusplus
}
#endif

#endif
