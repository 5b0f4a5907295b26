/*
 * TinyTrain runtime: inference sessions and few-shot heads. tinytrain_training.h and tinytrain_storage.h have the rest.
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
#define TT_RUNTIME_VERSION 3

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
typedef struct tt_learning tt_learning; /* tt_learning.h */

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
    uint32_t state_region, state_offset, state_bytes; /* the training state: of layers, the head, chosen channels */
    uint32_t head_offset, head_bytes;                 /* the head's part, counted from the region's start */
    const tt_learning *learning;                      /* NULL, and no state: compiled without training */
    uint32_t digest[2];                               /* of all that gives a saved state its meaning */
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

#ifdef __cplusplus
}
#endif

#endif
