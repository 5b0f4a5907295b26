/*
 * TinyTrain runtime: inference sessions and few-shot heads. Further headers: tinytrain_training.h, tinytrain_storage.h.
 *
 * One copy of the runtime serves any number of compiled models. A model is a const descriptor in flash; a session is
 * what varies, in memory the caller owns. Nothing here allocates, prints, recurses or keeps state of its own. A session
 * may be used by one thread at a time. tt_port.h says how to hook in assertions and a log.
 *
 * Firmware calls the functions of its model, <model>.h, which wrap these:
 *
 *     static _Alignas(TT_ALIGNMENT) uint8_t arena[NET_REGION0_BYTES];
 *     static net_session session;
 *     tt_result result;
 *
 *     tt_status status = net_init(&session, arena, sizeof arena);
 *     status = net_enroll(&session, image_of_a_cup, 0);  // an example of class 0
 *     status = net_enroll(&session, image_of_a_pen, 1);
 *     status = net_infer(&session, image, &result);      // result.label: 0 or 1
 */
#ifndef TINYTRAIN_H
#define TINYTRAIN_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Generated sources refuse to compile against another version. */
#define TT_RUNTIME_VERSION 4

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
    TT_ERR_ARGUMENT = -1,  /* a null pointer, an option outside its range, or a session that was not initialised */
    TT_ERR_ALIGNMENT = -2, /* a region does not start at a multiple of TT_ALIGNMENT */
    TT_ERR_MEMORY = -3,    /* a region is smaller than the plan needs, or a storage slot than the state */
    TT_ERR_LABEL = -4,     /* a label outside 0 .. classes - 1 */
    TT_ERR_FULL = -5,      /* more than TT_MAX_SHOTS examples of one class */
    TT_ERR_POLICY = -6,    /* the model was compiled with a policy that does not train, or does not choose */
    TT_ERR_CANCELLED = -7, /* the progress callback stopped the training; the training state is kept */
    TT_ERR_EMPTY = -8,     /* nothing is stored, or only a save that never finished */
    TT_ERR_CORRUPT = -9,   /* what is stored is damaged, or no state that this runtime writes */
    TT_ERR_MODEL = -10,    /* what is stored belongs to another model */
    TT_ERR_FORMAT = -11,   /* what is stored has another format version */
    TT_ERR_STORAGE = -12,  /* the storage driver failed, or the flash does not keep what was written */
    TT_ERR_MISSING = -13   /* an enrolled class has no sample in the support set */
} tt_status;

/* One line in English, for a log: "a label is outside 0 .. classes - 1". Never NULL. Unused, the linker drops it. */
const char *tt_status_text(tt_status status);

/* --- Model: generated, const, in flash ------------------------------------------------------- */

typedef struct tt_model tt_model;
typedef struct tt_session tt_session;
typedef struct tt_learning tt_learning; /* tt_learning.h */
typedef struct tt_stored tt_stored;     /* tt_stored.h */

struct tt_model {
    const char *name;
    uint32_t region_count;
    uint32_t region_bytes[TT_MAX_REGIONS];
    uint32_t input_region, input_offset, input_bytes;
    uint32_t output_region, output_offset, output_bytes;
    uint32_t features_region, features_offset, features;
    int32_t features_zero; /* zero point of the embedding */
    uint32_t classes;      /* a session may have, at most; 0: any number */
    void (*run)(uint8_t *const regions[]); /* input to output, all inside the regions */
    /* The head: the best of the classes with examples, and its score; label -1 where no class has any. */
    void (*classify)(const tt_session *s, const int8_t *features, int32_t *label, int32_t *score);
    uint32_t state_region, state_offset, state_bytes; /* the training state: of layers, the head, chosen channels */
    uint32_t head_offset, head_bytes;                 /* the head's part, counted from the region's start */
    /* A stored training state, before it is used: TT_OK, TT_ERR_CORRUPT, TT_ERR_STORAGE. NULL: there is none. */
    tt_status (*check)(const tt_model *model, const tt_stored *stored);
    const tt_learning *learning;                      /* NULL, and no state: compiled without training */
    uint32_t digest[2];                               /* of all that gives a saved state its meaning */
};

/* --- Session: the caller's ------------------------------------------------------------------- */

/* A piece of the caller's memory. */
typedef struct tt_region {
    void *data;
    size_t bytes;
} tt_region;

/* Memory for the classes of a session. */
typedef struct tt_classes {
    uint32_t count;
    int16_t *sums;   /* count x features: sum of a class's embeddings */
    uint16_t *shots; /* count: how many examples each sum holds */
    /* The same once more, where a training computes prototypes; NULL where the model does not train. */
    int16_t *next_sums;
    uint16_t *next_shots;
} tt_classes;

struct tt_session {
    const tt_model *model;            /* NULL until tt_init succeeds */
    uint8_t *regions[TT_MAX_REGIONS]; /* the caller's memory, at least model->region_bytes each */
    tt_classes classes;               /* training swaps sums and shots with the next ones */
};

/* Where an answer comes from. */
typedef enum tt_from {
    TT_FROM_NETWORK = 0, /* no class is enrolled: label counts the network's own classes */
    TT_FROM_HEAD = 1     /* label counts the classes that were enrolled or trained */
} tt_from;

typedef struct tt_result {
    int32_t label;          /* the best class; source says of which classes */
    /* TT_FROM_HEAD, TT_SCORE_BITS fraction bits: the cosine (--head prototype) or the probability (--head linear).
     * TT_FROM_NETWORK: the largest output byte. */
    int32_t score;
    tt_from source;
    const int8_t *output;   /* the model's output, valid until the session's next call */
    const int8_t *features; /* the embedding, likewise */
} tt_result;

/* --- Functions ------------------------------------------------------------------------------- */

/*
 * Begin a session: factory weights, no prototypes. All memory stays the session's until it is no longer used.
 * <model>_init() passes what <model>_session holds.
 */
tt_status tt_init(tt_session *s, const tt_model *model, const tt_region *regions, const tt_classes *classes);

/*
 * Where the input lies inside the arena: fill it in place to save a copy. NULL before tt_init.
 *
 *     camera_read(net_input(&session));
 *     status = net_infer(&session, net_input(&session), &result);
 */
int8_t *tt_input(const tt_session *s);

/* Run the network on input (input_bytes long; may be tt_input() itself) and classify. */
tt_status tt_infer(tt_session *s, const int8_t *input, tt_result *result);

/*
 * Run the network and add the embedding to class label's prototype. A class may also be added after a training, with
 * either head: it is told from the others by its prototype until the next training learns it like them.
 */
tt_status tt_enroll(tt_session *s, const int8_t *input, int32_t label);

/* Drop all classes: prototypes, and the training state of the head. That of the layers stays. */
tt_status tt_forget(tt_session *s);

/* Drop prototypes and all training state: factory weights. */
tt_status tt_unlearn(tt_session *s);

#ifdef __cplusplus
}
#endif

#endif
