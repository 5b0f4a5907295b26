/* The linear head: softmax over weights that start as the classes' mean directions and learn (numerics.md). */
#ifndef TT_LINEAR_H
#define TT_LINEAR_H

#include "tt_gradient.h"
#include "tt_head.h"
#include "tt_learn.h"

enum {
    TT_LINEAR_SCALE = 10,     /* of logits: at first they are 10 times a cosine, nearly */
    TT_LINEAR_CONSTANT = 128, /* what the bias is multiplied by: an input that never changes */
    TT_LINEAR_LOGIT_MAX = 0x3FFFFFFF,
    TT_LINEAR_ONE = 1 << 15   /* a probability */
};

/* score: the probability, TT_SCORE_BITS fraction bits. */
void tt_linear_classify(const tt_session *s, const int8_t *features, int32_t *label, int32_t *score);

/* Mean length of the class means, 16 fraction bits: the unit in which embeddings are measured. */
int64_t tt_linear_unit(const tt_session *s, const int8_t *features);

/* 15 fraction bits. on_class: the embedding's projection on the class's mean. */
int64_t tt_linear_logit(const tt_session *s, const int8_t *features, uint32_t label, tt_projection on_class,
                        int64_t unit);

/* A class's weights are its mean's direction plus what it has learnt: features + 1 deltas, the bias last. */
static inline int16_t *tt_linear_deltas(const tt_session *s, uint32_t label)
{
    int8_t *const state = (int8_t *)tt_head_state(s) + sizeof(tt_running);
    return (int16_t *)(void *)state + (size_t)label * (s->model->features + 1);
}

/* Fraction bits of a delta: int16 then reaches four times a typical component of a unit vector, or more. */
static inline int32_t tt_linear_bits(const tt_model *model)
{
    return 12 + (tt_bit_length(model->features) + 1) / 2;
}

#endif
