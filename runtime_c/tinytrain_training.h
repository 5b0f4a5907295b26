/* Training and selection: what a model compiled with a policy that learns offers besides tinytrain.h. */
#ifndef TINYTRAIN_TRAINING_H
#define TINYTRAIN_TRAINING_H

#include "tinytrain.h"

#ifdef __cplusplus
extern "C" {
#endif

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

#ifdef __cplusplus
}
#endif

#endif
