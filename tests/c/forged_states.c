/*
 * Saved states with forged bytes and a CRC made to fit: each is refused, and the session is as it was, or loaded, and then
 * the session works: inference, enrolment and training stay inside their memory (run under sanitizers). The model is
 * called "net"; between its buffers lie HIDDEN bytes that nothing may touch. forged_states CASES SEED
 */
#include "net.h"

#include "tt_learning.h"

enum { FLASH_ERASE = 512, FLASH_SLOT = (NET_STATE_BYTES + FLASH_ERASE - 1) / FLASH_ERASE * FLASH_ERASE };

#include "flash.h"
#include "hidden.h" /* uint32_t hidden[][2]: offset, bytes */

#if defined(__SANITIZE_ADDRESS__)
#define POISON 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define POISON 1
#endif
#endif

#ifdef POISON
void __asan_poison_memory_region(void const volatile *at, size_t bytes);
#else
#define __asan_poison_memory_region(at, bytes) ((void)(at), (void)(bytes))
#endif

enum { HEADER = 2 * TT_STORAGE_BLOCK, SAMPLES = 6, PLACES = 4096, TRAIN_EVERY = 64 };

static _Alignas(TT_ALIGNMENT) uint8_t arena[NET_REGION0_BYTES];
static net_session session;
static int8_t images[SAMPLES][NET_INPUT_BYTES];
static uint8_t whole[FLASH_SLOT]; /* the state that is forged */
static uint32_t payload;          /* its bytes */
static struct {
    uint32_t at, bytes;
} places[PLACES]; /* what is worth forging */
static uint32_t place_count;
static struct {
    uint64_t refused, loaded, trained;
} count;

/* --- Integrity, made to fit ------------------------------------------------------------------ */

static uint32_t table[256];

static uint32_t crc32(const uint8_t *bytes, uint32_t length, uint32_t crc)
{
    crc = ~crc;
    for (uint32_t i = 0; i < length; i++) {
        crc = crc >> 8 ^ table[(crc ^ bytes[i]) & 255u];
    }
    return ~crc;
}

static void fill_table(void)
{
    for (uint32_t i = 0; i < 256; i++) {
        table[i] = i;
        for (int bit = 0; bit < 8; bit++) {
            table[i] = table[i] >> 1 ^ (table[i] & 1u ? 0xEDB88320u : 0u);
        }
    }
}

static void seal(uint8_t *slot)
{
    const uint32_t crc = crc32(slot + HEADER, payload, crc32(slot, 28, 0));
    memcpy(slot + 28, &crc, sizeof crc);
    for (int i = 0; i < TT_STORAGE_BLOCK; i++) {
        slot[TT_STORAGE_BLOCK + i] = (uint8_t)~slot[i];
    }
}

/* --- What is forged -------------------------------------------------------------------------- */

static void add_place(uint32_t at, uint32_t bytes)
{
    if (place_count < PLACES && at + bytes <= payload) {
        places[place_count].at = HEADER + at;
        places[place_count++].bytes = bytes;
    }
}

/* Records of the choice, lists, scores, means, biases, shots: everything with a meaning of its own. */
static void list_places(void)
{
    const tt_learning *const l = session.core.model->learning;
    const uint8_t *const state = whole + HEADER;
    for (uint32_t i = 0; l->selection != NULL && i < l->selection->count; i++) {
        tt_selected selected;
        const uint32_t at = l->selection->candidates[i].selected;
        memcpy(&selected, state + at, sizeof selected);
        for (int again = 0; again < 8; again++) {
            for (uint32_t field = 0; field < sizeof selected; field += 4) {
                add_place(at + field, 4);
            }
        }
        for (uint32_t c = 0; c < (uint32_t)selected.chosen; c++) {
            add_place(selected.channels + 2 * c, 2);
        }
    }
    for (uint32_t i = 0; l->selection != NULL && i < l->selection->scores; i++) {
        add_place(l->selection->table + 4 * i, 4);
    }
    for (uint32_t i = 0; i < l->layer_count; i++) {
        for (uint32_t field = 0; field < 16; field += 4) {
            add_place(l->layers[i].running + field, 4);
        }
        for (uint32_t o = 0; o < (uint32_t)l->layers[i].params->outputs; o++) {
            add_place(l->layers[i].bias + 4 * o, 4);
        }
    }
    for (uint32_t c = 0; c < NET_CLASSES; c++) {
        add_place(payload - 2 * NET_CLASSES + 2 * c, 2);
    }
}

static uint32_t odd_value(uint32_t before)
{
    static const uint32_t values[] = { 0, 1, 2, 4, 0x7FFFFFFFu, 0x80000000u, 0xFFFFFFFFu, 0xFFFFFFFEu, 0x7FC00000u,
                                       0x7F800000u, 0xFF800000u, 0x7F7FFFFFu, 0xFFFCu, 0x101u, 0x8000u };
    switch (any() % 6) {
    case 0:
        return values[any() % (sizeof values / sizeof values[0])];
    case 1:
        return before + any() % 17 - 8;
    case 2:
        return before ^ 1u << any() % 32;
    case 3:
        return any() % NET_REGION0_BYTES;
    case 4:
        return before * 2;
    default:
        return any();
    }
}

static void forge(uint8_t *slot)
{
    for (uint32_t times = 1 + any() % 3; times > 0; times--) {
        uint32_t at = HEADER + any() % payload, bytes = 1, value = 0;
        if (any() % 4 != 0) {
            const uint32_t place = any() % place_count;
            at = places[place].at;
            bytes = places[place].bytes;
        }
        memcpy(&value, slot + at, bytes);
        value = odd_value(value);
        memcpy(slot + at, &value, bytes);
    }
    if (any() % 32 == 0) { /* a piece of the state moves elsewhere: records, lists and deltas of another layer */
        const uint32_t bytes = 1 + any() % 32, from = any() % (payload - bytes), to = any() % (payload - bytes);
        memmove(slot + HEADER + to, slot + HEADER + from, bytes);
    }
    seal(slot);
}

/* --- The session ----------------------------------------------------------------------------- */

static tt_status get(void *user, uint32_t index, int32_t epoch, int8_t *input, int32_t *label)
{
    (void)user, (void)epoch;
    *label = (int32_t)(index % NET_CLASSES);
    if (input != NULL) {
        memcpy(input, images[index], NET_INPUT_BYTES);
    }
    return TT_OK;
}

static tt_status train(uint32_t epochs)
{
    static const tt_samples samples = { SAMPLES, get, NULL };
    const tt_train_options options = { epochs, 0.25f, any(), NULL };
    return net_train(&session, &options, &samples, NULL, NULL);
}

static uint32_t crc_of_session(void)
{
    const tt_model *const model = session.core.model;
    const tt_classes *const classes = &session.core.classes;
    uint32_t crc = crc32(session.core.regions[model->state_region] + model->state_offset, model->state_bytes, 0);
    crc = crc32((const uint8_t *)classes->sums, 2 * NET_CLASSES * NET_FEATURES, crc);
    return crc32((const uint8_t *)classes->shots, 2 * NET_CLASSES, crc);
}

/* Everything that reads the state. */
static void use(void)
{
    tt_result result;
    CHECK(net_infer(&session, images[any() % SAMPLES], &result) == TT_OK);
    CHECK(result.label >= 0);
    if (any() % TRAIN_EVERY == 0) {
        const tt_status status = net_enroll(&session, images[0], (int32_t)(any() % NET_CLASSES));
        CHECK(status == TT_OK || status == TT_ERR_FULL);
        CHECK(train(2) == TT_OK); /* with a second epoch, in which channels may be drawn anew */
        CHECK(net_infer(&session, images[0], &result) == TT_OK);
        count.trained++;
    }
}

int main(int argc, char **argv)
{
    CHECK(argc == 3);
    const uint32_t cases = (uint32_t)atoi(argv[1]);
    power.program_bytes = 4;
    power.seed = (uint32_t)atoi(argv[2]) * 2u + 1u;
    power_on(UINT64_MAX, UNTOUCHED);
    fill_table();
    for (uint32_t i = 0; i < sizeof hidden / sizeof hidden[0]; i++) {
        __asan_poison_memory_region(arena + hidden[i][0], hidden[i][1]);
    }
    for (uint32_t i = 0; i < SAMPLES * NET_INPUT_BYTES; i++) {
        images[i / NET_INPUT_BYTES][i % NET_INPUT_BYTES] = (int8_t)any_byte();
    }
    const tt_storage driver = flash_driver();
    CHECK(net_init(&session, arena, sizeof arena) == TT_OK);
    CHECK(train(2) == TT_OK && net_save(&session, &driver) == TT_OK);
    memcpy(whole, flash.bytes, FLASH_SLOT);
    memcpy(&payload, whole + 20, sizeof payload);
    list_places();
    CHECK(place_count > 50);
    memset(flash.bytes, 0xFF, sizeof flash.bytes);
    uint32_t before = crc_of_session();
    for (uint32_t i = 0; i < cases; i++) {
        memcpy(flash.bytes, whole, HEADER + payload);
        forge(flash.bytes);
        const tt_status status = net_load(&session, &driver);
        CHECK(status == TT_OK || status == TT_ERR_CORRUPT);
        if (status != TT_OK) {
            CHECK(i % 16 != 0 || crc_of_session() == before);
            count.refused++;
        } else {
            count.loaded++;
            use();
            before = crc_of_session();
        }
    }
    memcpy(flash.bytes, whole, HEADER + payload);
    CHECK(net_load(&session, &driver) == TT_OK);
    printf("%llu refused, %llu loaded, %llu of them trained on\n", (unsigned long long)count.refused,
           (unsigned long long)count.loaded, (unsigned long long)count.trained);
    check_end("ok");
}
