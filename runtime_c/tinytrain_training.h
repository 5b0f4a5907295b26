/*
 * Training and selection: what a model compiled with a policy that learns offers besides tinytrain.h.
 *
 * The support set is the caller's, handed out sample by sample. To train on it:
 *
 *     static tt_status get(void *user, uint32_t index, int32_t epoch, int8_t *input, int32_t *label)
 *     {
 *         *label = labels[index];
 *         if (input != NULL) {                         // else the label is all that is wanted
 *             memcpy(input, images[index], NET_INPUT_BYTES);
 *             net_augment(input, epoch, index, 1);     // of images: another view in each epoch, not in TT_CLEAN
 *         }
 *         return TT_OK;
 *     }
 *
 *     const tt_samples samples = { .count = 50, .get = get };
 *     const tt_train_options options = { .epochs = 40 };    // zero: what the policy brings along
 *     tt_status status = net_train(&session, &options, &samples, NULL, NULL);
 */
#ifndef TINYTRAIN_TRAINING_H
#define TINYTRAIN_TRAINING_H

#include "tinytrain.h"

#ifdef __cplusplus
extern "C" {
#endif

/* --- The support set ------------------------------------------------------------------------- */

/* The epoch of a sample that is wanted as it is, without augmentation. */
#define TT_CLEAN (-1)

/*
 * get() writes sample `index` into input (input_bytes long) and its class into label. Where input is NULL only the
 * label is wanted: once for every sample before anything else happens, and where a cache holds the rest.
 * epoch: which pass over the set this is, for the caller's augmentation, or TT_CLEAN.
 * Any status but TT_OK ends the training with that status. The label of an index may not change.
 */
typedef struct tt_samples {
    uint32_t count; /* at least 1; of one class at most TT_MAX_SHOTS */
    tt_status (*get)(void *user, uint32_t index, int32_t epoch, int8_t *input, int32_t *label);
    void *user;     /* what get() is given; may be NULL */
} tt_samples;

/*
 * Where features of samples at the freeze boundary may be kept, so that frozen layers run once per sample. The
 * caller's: RAM, external RAM or a file. slot: 0 .. samples * (copies + 1) - 1; stored before it is loaded, by the same
 * training. Any status but TT_OK ends the training with that status.
 */
typedef struct tt_cache {
    tt_status (*store)(void *user, uint32_t slot, const int8_t *features, uint32_t bytes);
    tt_status (*load)(void *user, uint32_t slot, int8_t *features, uint32_t bytes);
    void *user;      /* what both are given; may be NULL */
    uint32_t copies; /* augmented ones of each sample, used in turn; at least 1 */
} tt_cache;

/* --- Selection ------------------------------------------------------------------------------- */

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

typedef struct tt_select_options {
    tt_selector selector; /* 0: as compiled */
    uint32_t samples;     /* that Fisher information is measured on, at most; 0: TT_FISHER_SAMPLES */
    uint32_t seed;        /* of the random selector; 0 is a seed like any other */
    uint32_t pool_bytes;  /* that lists and deltas may take; 0, or more than there are: all that was planned */
    uint32_t macs;        /* of weight gradients in one step; 0: --macs, UINT32_MAX: no MAC limit */
} tt_select_options;

/*
 * Choose what learns this task, for models compiled with --policy tinytrain:
 *
 *     const tt_select_options options = { .pool_bytes = 8192 };  // the rest as compiled
 *     tt_status status = net_select(&session, &options, &samples);
 *
 * Training state and prototypes from before are dropped; afterwards prototypes are those of the samples where Fisher
 * information was measured, else there are none. Where it was not called tt_train() does it, with options of 0 but its
 * own seed, and at less cost: what both need it computes once.
 * TT_ERR_LABEL and TT_ERR_FULL are found first and change nothing. An error after that leaves factory weights and no
 * prototypes, as tt_unlearn() does.
 */
tt_status tt_select(tt_session *s, const tt_select_options *options, const tt_samples *samples);

/* --- Training -------------------------------------------------------------------------------- */

typedef struct tt_train_options {
    uint32_t epochs; /* passes over the support set; 0: prototypes alone, and the choice of channels if there is none */
    /* Learning rate relative to the weight norm, below 1; decays linearly to 0. An epoch of uncorrelated gradients, all
     * answers wrong, moves a layer by rate times the norm of its weights. 0: the policy's default. */
    float rate;
    uint32_t seed; /* of the visiting order, stochastic rounding, and channels drawn anew; 0 is a seed like any other */
    const tt_cache *cache; /* NULL: every sample runs through the whole network in every epoch */
} tt_train_options;

typedef struct tt_progress {
    uint32_t epoch, epochs, sample, samples;
    uint32_t saturated; /* updates that met the end of a delta's range so far */
    uint32_t error;     /* mean of 1 - p[label] over this epoch so far, 15 fraction bits */
} tt_progress;

/* Called after each sample; return nonzero to stop. */
typedef int tt_progress_fn(void *user, const tt_progress *progress);

/*
 * Learn the support set: prototypes of all its classes, deltas of the layers that the policy chose, and the weights of
 * a linear head. Earlier prototypes and head weights are replaced; deltas of layers go on from where they are.
 * Prototypes are recomputed before every epoch but the first, and after the last (a linear head keeps the first).
 * progress may be NULL.
 *
 * Every enrolled class must be in the support set, else TT_ERR_MISSING: once layers learn, a prototype from before
 * means nothing. tt_forget() first, to drop a class on purpose.
 * Labels, examples per class and options are checked first: TT_ERR_LABEL, TT_ERR_FULL, TT_ERR_MISSING and
 * TT_ERR_ARGUMENT change nothing. An error of get() or of the cache while the first prototypes are computed or channels
 * are chosen leaves everything as it was. A later one leaves what a stop at that step would: the deltas so far, and
 * prototypes of them or, where the samples cannot be had any more, of the last pass that was complete.
 */
tt_status tt_train(tt_session *s, const tt_train_options *options, const tt_samples *samples,
                   tt_progress_fn *progress, void *user);

#ifdef __cplusplus
}
#endif

#endif
