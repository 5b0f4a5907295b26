/*
 * Saves a model's state again and again, each time once for every point at which power can fail, and looks at what is
 * loaded afterwards. The model is called "net". power_cuts CYCLES PROGRAM_BYTES SEED
 */
#include "net.h"

enum { FLASH_ERASE = 512, FLASH_SLOT = (NET_STATE_BYTES + FLASH_ERASE - 1) / FLASH_ERASE * FLASH_ERASE };

#include "flash.h"

enum { SUMS = sizeof ((net_session *)0)->sums, SHOTS = sizeof ((net_session *)0)->shots };
enum { HEADER = 2 * TT_STORAGE_BLOCK, SIZE_AT = 20, LEARNT_MAX = NET_STATE_BYTES - HEADER };

typedef struct state {
    uint8_t learnt[LEARNT_MAX], sums[SUMS], shots[SHOTS];
} state;

static _Alignas(TT_ALIGNMENT) uint8_t arena[NET_REGION0_BYTES];
static net_session session;
static tt_model unchecked;
static struct {
    uint64_t erase, program, old, new, nothing, again;
} count;

static uint32_t learnt_bytes(void)
{
    return session.core.model->state_bytes;
}

static uint8_t *learnt(void)
{
    return session.core.regions[session.core.model->state_region] + session.core.model->state_offset;
}

/* Bytes of the payload that a slot holds. */
static uint32_t payload(uint32_t slot)
{
    uint32_t bytes;
    memcpy(&bytes, flash.bytes + slot * FLASH_SLOT + SIZE_AT, sizeof bytes);
    return bytes;
}

static void put(const state *from)
{
    memcpy(learnt(), from->learnt, learnt_bytes());
    memcpy(session.sums, from->sums, SUMS);
    memcpy(session.shots, from->shots, SHOTS);
}

static int holds(const state *expected)
{
    return memcmp(learnt(), expected->learnt, learnt_bytes()) == 0 && memcmp(session.sums, expected->sums, SUMS) == 0 &&
           memcmp(session.shots, expected->shots, SHOTS) == 0;
}

/* Random bytes, or bytes that look like erased or half-erased flash; what is learnt may end early, in zeros. */
static void invent(state *s, const state *previous)
{
    const uint32_t kind = any() % 5;
    uint8_t *bytes = (uint8_t *)s;
    for (size_t i = 0; i < sizeof *s; i++) {
        bytes[i] = kind == 0 ? 0xFF : kind == 1 ? 0 : any_byte();
    }
    if (kind == 4) {
        *s = *previous; /* one bit different */
    }
    if (any() % 2) {
        const uint32_t used = any() % (learnt_bytes() + 1);
        memset(s->learnt + used, 0, sizeof s->learnt - used);
    }
    for (size_t i = 0; i < SHOTS; i += 2) { /* at most 255 examples a class: no state has more than 256 */
        s->shots[i + 1] = 0;
    }
    s->shots[any() % SHOTS & ~1u] ^= (uint8_t)(1u << any() % 8);
}

/* After a reset: memory holds anything. */
static void reboot(const state *junk)
{
    power_on(UINT64_MAX, UNTOUCHED);
    CHECK(net_init(&session, arena, sizeof arena) == TT_OK);
    unchecked = *session.core.model; /* what is saved here is invented, not trained */
    unchecked.check = NULL;
    session.core.model = &unchecked;
    put(junk);
}

static tt_status load(void)
{
    const tt_storage driver = flash_driver();
    return net_load(&session, &driver);
}

static tt_status save(const state *s)
{
    const tt_storage driver = flash_driver();
    put(s);
    return net_save(&session, &driver);
}

/* old, or NULL for nothing, or new. may: bit 0 old, bit 1 new. Which of the two it was. */
static const state *check_loaded(const state *old, const state *new, int may)
{
    static state junk;
    memset(&junk, 0x77, sizeof junk);
    reboot(&junk);
    const tt_status status = load();
    if (status != TT_OK) {
        CHECK((may & 1) && old == NULL);
        CHECK(status == TT_ERR_EMPTY || status == TT_ERR_CORRUPT || status == TT_ERR_STORAGE);
        CHECK(holds(&junk)); /* a refusal changes nothing */
        count.nothing++;
        return NULL;
    }
    if ((may & 2) && holds(new)) {
        count.new++;
        return new;
    }
    CHECK((may & 1) && old != NULL && holds(old));
    count.old++;
    return old;
}

/* Go on with what a power cut left: a second one, then a save that ends. */
static void save_again(const state *found, const state *old)
{
    static state third;
    invent(&third, old == NULL ? &third : old);
    const flash_memory left = flash;
    power_on(UINT64_MAX, UNTOUCHED);
    CHECK(save(&third) == TT_OK);
    const uint64_t steps = power.now;
    check_loaded(NULL, &third, 2);
    flash = left;
    power_on(any() % steps, any() % 2 ? HALF_DONE : UNREADABLE);
    CHECK(save(&third) != TT_OK);
    check_loaded(found, &third, 3);
    power_on(UINT64_MAX, UNTOUCHED);
    CHECK(save(&third) == TT_OK);
    check_loaded(NULL, &third, 2);
    count.again++;
}

static void cut_everywhere(const state *old, const state *new)
{
    const flash_memory before = flash;
    power_on(UINT64_MAX, UNTOUCHED);
    CHECK(save(new) == TT_OK);
    const uint64_t steps = power.now;
    const uint64_t mark = power.last_begin;
    const flash_memory after = flash;
    CHECK(power.last_offset % FLASH_SLOT == TT_STORAGE_BLOCK); /* the commit mark comes last */
    for (uint64_t cut = 0; cut < steps; cut++) {
        power.torn = 1;
        for (int how = 0; how < MANNERS && power.torn; how++) {
            flash = before;
            power_on(cut, (manner)how);
            CHECK(save(new) == TT_ERR_STORAGE);
            const int torn = power.torn;
            *(power.inside_erase ? &count.erase : &count.program) += 1;
            /* Nothing counts before the commit mark is begun, everything once it is complete. */
            const int may = cut <= mark ? 1 : cut == steps - 1 ? 2 : 3;
            const state *found = check_loaded(old, new, may);
            if (how != FLICKERING && any() % 16 == 0) {
                save_again(found, old == NULL ? new : old);
            }
            power.torn = torn;
        }
    }
    flash = after;
    check_loaded(NULL, new, 2);
}

static uint32_t crc32(const uint8_t *bytes, uint32_t length, uint32_t crc)
{
    crc = ~crc;
    for (uint32_t i = 0; i < length; i++) {
        crc ^= bytes[i];
        for (int bit = 0; bit < 8; bit++) {
            crc = crc >> 1 ^ (crc & 1u ? 0xEDB88320u : 0u);
        }
    }
    return ~crc;
}

/* Rewrite one word of slot 0's header, and all that vouches for it. */
static void set_header_word(uint32_t index, uint32_t value)
{
    uint8_t *slot = flash.bytes;
    const uint32_t bytes = payload(0);
    memcpy(slot + 4 * index, &value, 4);
    const uint32_t crc = crc32(slot + HEADER, bytes, crc32(slot, 28, 0));
    memcpy(slot + 28, &crc, 4);
    for (int i = 0; i < TT_STORAGE_BLOCK; i++) {
        slot[TT_STORAGE_BLOCK + i] = (uint8_t)~slot[i];
    }
}

/* Any byte of the newest slot changed: the older state, or a refusal where there is none. */
static void damage_every_byte(const state *old, const state *new, uint32_t newest)
{
    const flash_memory whole = flash;
    for (uint32_t at = 0; at < HEADER + payload(newest); at++) {
        for (int alone = 0; alone < 2; alone++) {
            flash = whole;
            flash.bytes[newest * FLASH_SLOT + at] ^= (uint8_t)(1 + any() % 255);
            if (alone) {
                memset(flash.bytes + (1 - newest) * FLASH_SLOT, 0xFF, FLASH_SLOT);
            }
            check_loaded(alone ? NULL : old, new, 1);
        }
    }
    flash = whole;
}

static void refuse_what_belongs_to_others(const state *any_state)
{
    const flash_memory whole = flash;
    memset(&flash.bytes, 0xFF, sizeof flash.bytes);
    memset(&flash.erased, 1, sizeof flash.erased);
    CHECK(load() == TT_ERR_EMPTY);
    CHECK(save(any_state) == TT_OK);
    const flash_memory one = flash;
    const uint32_t least = SUMS + SHOTS;
    const struct {
        uint32_t word, value;
        tt_status status;
    } wrong[] = { { 0, 12345, TT_ERR_CORRUPT }, { 1, 12345, TT_ERR_FORMAT },    { 1, 1, TT_ERR_FORMAT },
                  { 2, 12345, TT_ERR_MODEL },   { 3, 12345, TT_ERR_MODEL },     { 4, 12345, TT_ERR_MODEL },
                  { 5, least - 1, TT_ERR_MODEL }, { 5, least + learnt_bytes() + 1, TT_ERR_MODEL },
                  { 5, UINT32_MAX, TT_ERR_MODEL }, { 6, 12345, TT_OK } };
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        flash = one;
        set_header_word(wrong[i].word, wrong[i].value);
        CHECK(load() == wrong[i].status);
        CHECK(save(any_state) == TT_OK && load() == TT_OK); /* and there is always room to save */
    }
    flash = one;
    flash.bytes[HEADER] ^= 1;
    CHECK(load() == TT_ERR_CORRUPT);
    flash = whole;
}

static void refuse_a_driver_that_cannot_work(void)
{
    const tt_storage good = flash_driver();
    tt_storage bad[10];
    for (int i = 0; i < 10; i++) {
        bad[i] = good;
    }
    bad[0].erase = NULL, bad[1].program = NULL, bad[2].read = NULL;
    bad[3].erase_bytes = 0, bad[4].erase_bytes = TT_STORAGE_BLOCK / 2;
    bad[5].slot_bytes++, bad[6].program_bytes = 0, bad[7].program_bytes = 3, bad[8].program_bytes = 64;
    bad[9].slot_bytes = 0xFFFFF000u; /* the second would begin where offsets wrap */
    bad[9].erase_bytes = 0x1000u;
    for (int i = 0; i < 10; i++) {
        CHECK(net_save(&session, &bad[i]) == TT_ERR_ARGUMENT && net_load(&session, &bad[i]) == TT_ERR_ARGUMENT);
    }
    tt_storage small = good;
    small.erase_bytes = TT_STORAGE_BLOCK;
    small.slot_bytes = NET_STATE_BYTES - TT_STORAGE_BLOCK;
    CHECK(net_save(&session, &small) == TT_ERR_MEMORY && net_load(&session, &small) == TT_ERR_MEMORY);
    CHECK(net_save(NULL, &good) == TT_ERR_ARGUMENT && net_load(NULL, &good) == TT_ERR_ARGUMENT);
    CHECK(net_save(&session, NULL) == TT_ERR_ARGUMENT && net_load(&session, NULL) == TT_ERR_ARGUMENT);
    net_session unready = { .core = { .model = NULL } };
    CHECK(net_save(&unready, &good) == TT_ERR_ARGUMENT && net_load(&unready, &good) == TT_ERR_ARGUMENT);
}

int main(int argc, char **argv)
{
    static state states[2];
    CHECK(argc == 4);
    const int cycles = atoi(argv[1]);
    power.program_bytes = (uint32_t)atoi(argv[2]);
    power.seed = (uint32_t)atoi(argv[3]) * 2u + 1u;
    memset(&flash, 0, sizeof flash);
    memset(flash.bytes, 0x3C, sizeof flash.bytes); /* delivered with anything in it */
    reboot(&states[0]);
    CHECK(TT_STATE_BYTES(learnt_bytes() + SUMS + SHOTS) == NET_STATE_BYTES);
    refuse_a_driver_that_cannot_work();
    for (int i = 0; i < cycles; i++) {
        invent(&states[i % 2], &states[(i + 1) % 2]);
        cut_everywhere(i == 0 ? NULL : &states[(i + 1) % 2], &states[i % 2]);
        if (i == 0) {
            set_header_word(6, 0u - (uint32_t)cycles / 2); /* half-way the sequence number wraps */
        }
    }
    printf("%llu power cuts: %llu inside or after an erase, %llu inside or after a program\n",
           (unsigned long long)(count.erase + count.program), (unsigned long long)count.erase,
           (unsigned long long)count.program);
    printf("then loaded: old %llu, new %llu, nothing yet %llu; %llu times cut once more and saved again\n",
           (unsigned long long)count.old, (unsigned long long)count.new, (unsigned long long)count.nothing,
           (unsigned long long)count.again);
    damage_every_byte(&states[cycles % 2], &states[(cycles + 1) % 2], (uint32_t)(cycles + 1) % 2);
    refuse_what_belongs_to_others(&states[0]);
    check_end("ok");
}
