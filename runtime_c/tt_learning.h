/* What a model that learns brings along: its backward pass, candidate layers and head; generated, const, in flash. */
#ifndef TT_LEARNING_H
#define TT_LEARNING_H

#include "tinytrain_training.h"
#include "tt_learn.h"

/* --- Selection: candidate layers and the training pool ---------------------------------------- */

/* One layer whose channels are chosen on the device, const, in flash. */
typedef struct tt_candidate {
    const tt_learn_params *layer;
    uint32_t selected;    /* offset of its tt_selected inside the training state */
    uint32_t first;       /* its first entry in the table of scores */
    uint16_t channels;    /* input channels */
    uint16_t limit;       /* how many of them may learn */
    uint32_t delta_bytes; /* of one channel */
    uint32_t saved_bytes;
    uint32_t macs;        /* of one channel's weight gradient */
    float cost;           /* P_i times this is the layer's score */
} tt_candidate;

/* What was chosen for a candidate: in RAM, zero before selection. Offsets: in the training state, except `saved`. */
typedef struct tt_selected {
    uint32_t channels; /* uint16_t[chosen]; ascending, until they are drawn anew */
    uint32_t deltas;   /* int16_t[outputs * taps * chosen] */
    uint32_t saved;    /* inside the saved inputs of all candidates */
    int32_t chosen;
    float weight_norm;
    uint32_t scores; /* float[channels of the layer] that channels are drawn anew by; 0: they stay */
} tt_selected;

/* The training pool of one model, const. Offsets are inside the training state. */
typedef struct tt_selection {
    const tt_candidate *candidates;
    uint32_t count;
    uint32_t groups;         /* passes that measuring Fisher information takes */
    uint32_t pool, pool_end; /* lists and deltas */
    uint32_t table;          /* float scores up to the pool's end, while channels are chosen or drawn anew */
    uint32_t scores;         /* how many */
    uint32_t saved_bytes;
    tt_selector selector; /* where the caller leaves it open */
    uint32_t macs;        /* likewise; UINT32_MAX: no limit */
} tt_selection;

/* Whether a selector looks at the samples: it measures Fisher information, by their prototypes. */
TT_INLINE int32_t tt_selector_measures(tt_selector selector)
{
    return selector != TT_SELECT_RANDOM && selector != TT_SELECT_L2;
}

/* What a Fisher pass adds to. */
typedef struct tt_fisher {
    float *scores;
    int32_t group; /* of candidates whose inputs the forward pass kept */
} tt_fisher;

/* --- The head ---------------------------------------------------------------------------------- */

/* How a head learns. Its own state (tt_model.head_bytes) begins with a tt_running; the rest may be any bytes. */
typedef struct tt_head_learning {
    /* Loss of one sample and a step of the head's own weights. gradient: of the loss with respect to the embedding,
     * mantissas; its exponent is returned through the pointer. scratch: 2 * classes.
     * rate: NULL for the loss alone. Returns 1 - p[label] with 15 fraction bits. */
    int32_t (*learn)(const tt_session *s, tt_rate *rate, const int8_t *features, int32_t label, int16_t *gradient,
                     int32_t *exponent, int64_t *scratch);
    /* Whether prototypes are recomputed before every epoch but the first and after the last, as layers have moved. */
    int32_t recomputes;
} tt_head_learning;

/* --- The model --------------------------------------------------------------------------------- */

/* One layer that learns: where its state lies inside the training state. Const, in flash. */
typedef struct tt_layer {
    const tt_learn_params *params;
    uint32_t bias;    /* int32_t[outputs] */
    uint32_t running; /* tt_running[2]: of weights and of biases */
} tt_layer;

/* A compiled backward pass. Offsets are into the session's regions. */
struct tt_learning {
    /* Input to freeze boundary: frozen layers. */
    void (*run_frozen)(uint8_t *const regions[]);
    /* Freeze boundary to embedding, or to the output; keep: TT_KEEP_... */
    void (*run_trained)(uint8_t *const regions[], int32_t keep);
    uint32_t boundary_region, boundary_offset, boundary_bytes; /* the features at the freeze boundary */
    /* After run_trained(regions, TT_KEEP) and the loss: backward and update for one sample; or, where fisher is not
     * NULL and after TT_KEEP_FISHER + group, backward alone, adding to its scores. */
    void (*backward)(uint8_t *const regions[], tt_rate *rate, const tt_fisher *fisher, int32_t exponent);
    uint32_t gradient_region, gradient_offset;                 /* the embedding's gradient: int16 */
    uint32_t loss_region, loss_offset;                         /* 2 * classes int64, while the loss is computed */
    const tt_head_learning *head;
    float rate;                                                /* where the caller leaves it open */
    const tt_selection *selection;                             /* NULL: what learns is fixed */
    const tt_layer *layers;
    uint32_t layer_count;
};

/* How far run_trained() goes, and what it keeps. */
#define TT_KEEP_OUTPUT (-1) /* to the output, nothing */
#define TT_KEEP_NOTHING 0   /* to the embedding, nothing */
#define TT_KEEP 1           /* to the embedding, all that backward() needs */
#define TT_KEEP_FISHER 2    /* likewise, but the candidates' whole inputs; + group */

#endif
