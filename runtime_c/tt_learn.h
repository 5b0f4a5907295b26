/*
 * Learning: effective parameters and updates.
 *
 * Weights in flash never change. A selected weight has a delta in RAM, int16 (Q8.8) or, with --rounding stochastic,
 * int8 (whole steps), a bias an int32 delta; effective weight = saturate(flash + round(delta)).
 * docs/reference/numerics.md, "Updates".
 */
#ifndef TT_LEARN_H
#define TT_LEARN_H

#include <stddef.h>

#include "tt_gradient.h"
#include "tt_random.h"

/*
 * Which weights an input channel has, and where. Input channel c is number c % group_inputs of group c / group_inputs
 * and meets that group's outputs; the weight of the group's output o and a tap lies at
 * group * group_stride + o * output_stride + tap * tap_stride + c % group_inputs.
 * One group: an ordinary convolution or a fully connected layer. A group a channel: depthwise.
 */
typedef struct tt_weight_layout {
    int32_t bytes; /* of all weights */
    int32_t group_outputs, group_inputs, taps;
    int32_t group_stride, output_stride, tap_stride;
} tt_weight_layout;

/* One trained layer, const, in flash. */
typedef struct tt_learn_params {
    const tt_conv_params *pretrained;
    int32_t outputs;                 /* of all groups */
    tt_weight_layout layout;         /* all 0 where the bias alone learns */
    tt_factors weight_scales;        /* s_w, per output; of candidates for selection */
    tt_factors weight_inverse;       /* 1 / s_w, per output */
    tt_factors bias_inverse;         /* 1 / (s_w s_x), per output */
    float bias_norm;                 /* of the pretrained biases, times their rate multiplier, in deltas at scale 1 */
    int32_t bias_limit;              /* of their deltas: no accumulator can overflow */
} tt_learn_params;

/* Running mean of a gradient's squared norm. */
typedef struct tt_running {
    float mean;
    int32_t seen;
} tt_running;

/* What a layer learns, and has learnt. */
typedef struct tt_learn_state {
    const uint16_t *channels; /* input channels whose weights learn: `chosen` numbers */
    int32_t chosen;
    float weight_norm; /* of these channels' pretrained weights, in units of a delta at scale 1 */
    uint32_t saved;    /* of a candidate: where its inputs lie among the saved ones */
    void *deltas;      /* group_outputs x taps x chosen: int16_t, or int8_t where weights are rounded stochastically */
    int32_t delta_bytes; /* 2 or 1 */
    int32_t *bias;       /* outputs */
    tt_running *weight_running, *bias_running;
} tt_learn_state;

/* Of one training run. */
typedef struct tt_rate {
    float rate;      /* learning rate */
    int32_t samples; /* of the support set */
    uint32_t saturated; /* updates that met the end of a delta's range, counted */
    uint32_t random;    /* of this sample; each layer whose weights learn draws a key from it */
} tt_rate;

/* --- Deltas ----------------------------------------------------------------------------------- */

/* delta -= move, in steps of 1 / 256 of a weight. The delta keeps all of it: Q8.8. */
TT_INLINE void tt_move_nearest(int16_t *delta, int64_t move, uint32_t *random, tt_rate *rate)
{
    const int64_t moved = *delta - move;
    (void)random;
    rate->saturated += moved > INT16_MAX || moved < -INT16_MAX;
    *delta = (int16_t)(moved > INT16_MAX ? INT16_MAX : moved < -INT16_MAX ? -INT16_MAX : moved);
}

/* The same rounded to whole steps, up with a probability of what lies above: right on average, nothing is kept. */
TT_INLINE void tt_move_stochastic(int8_t *delta, int64_t move, uint32_t *random, tt_rate *rate)
{
    const int64_t moved = *delta - ((move + (int64_t)(tt_random_next(random) >> 24)) >> 8);
    rate->saturated += moved > INT8_MAX || moved < -INT8_MAX;
    *delta = (int8_t)(moved > INT8_MAX ? INT8_MAX : moved < -INT8_MAX ? -INT8_MAX : moved);
}

/* A delta in whole steps of its weight. */
TT_INLINE int32_t tt_delta_steps(const tt_learn_state *s, int32_t index)
{
    return s->delta_bytes == 1 ? ((const int8_t *)s->deltas)[index] : (((const int16_t *)s->deltas)[index] + 128) >> 8;
}

/* Fill in a copy of the layer's parameters with deltas applied. weights, bias: room for all rows; weights may be
 * NULL where only the bias learns. */
void tt_effective(const tt_learn_params *p, const tt_learn_state *s, int8_t *weights, int32_t *bias,
                  tt_conv_params *effective);

/* value * 2^exponent for value >= 0: 0 below the smallest normal float, 2^127 above the largest power of two. */
float tt_scaled(float value, int32_t exponent);

/* What a tensor's gradient is multiplied by, before 1 / scale, to become a delta; 0: no step yet, the mean is empty. */
float tt_step_length(const tt_rate *rate, const tt_running *running, float norm);

/* The same in integers: fraction * 2^exponent of a gradient becomes a delta. */
typedef struct tt_step {
    int32_t fraction; /* 0: no step yet, the running mean is empty */
    int32_t exponent;
} tt_step;

tt_step tt_step_size(const tt_rate *rate, const tt_running *running, float norm);

/* What to subtract from a delta for a gradient `value` of output channel o; see tt_move(). */
typedef struct tt_update {
    int32_t multiplier; /* below 2^30 */
    int32_t shift;
} tt_update;

TT_INLINE tt_update tt_update_of(tt_step step, const tt_factors *inverse, int32_t output, int32_t gradient_exponent)
{
    const tt_update update = { (int32_t)(((int64_t)step.fraction * inverse->values[output]) >> TT_FACTOR_BITS),
                               30 - step.exponent - gradient_exponent - inverse->exponent };
    return update;
}

TT_INLINE int64_t tt_move(int32_t value, tt_update update)
{
    if (update.shift <= 0 || update.shift >= 63) {
        return 0;
    }
    return ((int64_t)value * update.multiplier + (INT64_C(1) << (update.shift - 1))) >> update.shift;
}

/* Move `count` deltas of one output channel against their gradients, saturating; counts saturations. Returns the sum of
 * the squares of the gradients' magnitudes >> norm_shift. random: the row's, tt_random_of_row(). */
uint64_t tt_learn_nearest(int16_t *deltas, const int32_t *gradients, int32_t count, tt_update update,
                          int32_t norm_shift, uint32_t *random, tt_rate *rate);
uint64_t tt_learn_stochastic(int8_t *deltas, const int32_t *gradients, int32_t count, tt_update update,
                             int32_t norm_shift, uint32_t *random, tt_rate *rate);

/* Fold the squared norm of a sample's gradient, sum * 2^exponent, into the running mean. */
void tt_running_add(tt_running *running, uint64_t sum, int32_t exponent);

/* The same for a squared norm in float. */
void tt_running_fold(tt_running *running, float square);

/* Bias gradient: column sums of g (pixels x outputs), and its update. magnitude: of g. */
void tt_learn_bias(const tt_learn_params *p, const tt_learn_state *s, tt_rate *rate, const int16_t *g, int32_t pixels,
                   int32_t exponent, int32_t magnitude);

#endif
