/*
 * TinyTrain runtime: inference sessions and the prototype head.
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
#define TT_RUNTIME_VERSION 1

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
    TT_ERR_MEMORY = -3,    /* a region is smaller than the plan needs */
    TT_ERR_LABEL = -4,     /* a label outside 0 .. classes - 1 */
    TT_ERR_FULL = -5,      /* the class already has TT_MAX_SHOTS examples */
    TT_ERR_POLICY = -6,    /* the model was compiled with --policy none: it cannot train */
    TT_ERR_CANCELLED = -7  /* the progress callback stopped the training; what was learnt so far is kept */
} tt_status;

/* --- Model: generated, const, in flash ------------------------------------------------------- */

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
    /* Input to output, all inside the regions; with `saving`, input to embedding, keeping what backward needs. */
    void (*run)(uint8_t *const regions[], int32_t saving);
    const tt_learning *learning; /* NULL: compiled without training */
} tt_model;

/* --- Session: the caller's --------------------------------------------------------------------*/

typedef struct tt_session {
    const tt_model *model;              /* NULL until tt_init succeeds */
    uint8_t *regions[TT_MAX_REGIONS];   /* the caller's memory, at least model->region_bytes each */
    int16_t *sums;                      /* classes x features: sum of a class's embeddings */
    uint16_t *shots;                    /* classes: how many examples each sum holds */
} tt_session;

/* A piece of the caller's memory. */
typedef struct tt_region {
    void *data;
    size_t bytes;
} tt_region;

typedef struct tt_result {
    int32_t label;          /* most similar class; before any enrolment the largest output; -1: no answer */
    int32_t score;          /* cosine in Q15; before any enrolment the output byte itself */
    const int8_t *output;   /* the model's output, valid until the session's next call */
    const int8_t *features; /* the embedding, likewise */
} tt_result;

/* --- Training -------------------------------------------------------------------------------- */

typedef struct tt_train_options {
    uint32_t epochs;
    float rate;    /* learning rate, > 0: how far, relative to its length, a layer may move in the first epoch; falls to 0 */
    uint32_t seed; /* of the order in which samples are visited, and of stochastic rounding */
} tt_train_options;

/* The epoch of a sample that is wanted as it is, without augmentation. */
#define TT_CLEAN (-1)

/*
 * The support set stays the caller's. get() writes sample `index` into input (input_bytes long) and its class
 * into label. epoch: which pass over the set this is, for the caller's augmentation, or TT_CLEAN.
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

/* --- Functions ------------------------------------------------------------------------------- */

/* sums and shots: room for classes x features and classes entries; both are cleared. */
tt_status tt_init(tt_session *s, const tt_model *model, const tt_region *regions, int16_t *sums, uint16_t *shots);

/* Where the input lies inside the arena: fill it in place to save a copy. NULL before tt_init. */
int8_t *tt_input(const tt_session *s);

/* Run the network on input (input_bytes long; may be tt_input() itself) and classify. */
tt_status tt_infer(tt_session *s, const int8_t *input, tt_result *result);

/* Run the network and add the embedding to class label's prototype. */
tt_status tt_enroll(tt_session *s, const int8_t *input, int32_t label);

/* Drop all prototypes. What the layers have learnt stays. */
tt_status tt_forget(tt_session *s);

/* Drop everything learnt: factory weights, no prototypes. */
tt_status tt_unlearn(tt_session *s);

/*
 * Learn the support set: recomputes all prototypes and updates the layers that the model's policy chose.
 * Prototypes of earlier enrolments are replaced. progress may be NULL.
 */
tt_status tt_train(tt_session *s, const tt_train_options *options, const tt_samples *samples,
                   tt_progress_fn *progress, void *user);

#ifdef __cplusplus
}
#endif

#endif
