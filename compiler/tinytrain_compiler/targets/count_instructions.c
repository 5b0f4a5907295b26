/*
 * QEMU plugin: exact instruction counts between two marker instructions.
 *
 * Arguments: out=FILE      one line per marked stretch, its number of executed instructions
 *            profile=FILE  optional: address and count of every instruction executed inside the stretches
 *
 * Markers are Thumb moves of a register to itself: mov r10, r10 begins a stretch, mov r11, r11 ends it. Neither is
 * counted. An instruction that an IT block skips counts, as it does on the core.
 *
 * Blocks are counted as a whole by one inline addition at their start. That is exact, because a block leaves early only
 * by a fault, and a fault ends the run. A block that holds a marker is counted instruction by instruction.
 *
 * Debian does not ship QEMU's header, so what is used of it is declared here. Define TT_PLUGIN_API as the version that
 * QEMU speaks: 1 up to QEMU 8.2, 2 for 9.0, 3 from 9.1 on (later ones accept it).
 */
#include <inttypes.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* --- QEMU's plugin API ----------------------------------------------------------------------- */

#define EXPORT __attribute__((visibility("default")))

typedef uint64_t qemu_plugin_id_t;
struct qemu_plugin_tb;
struct qemu_plugin_insn;
enum { QEMU_PLUGIN_CB_NO_REGS = 0 };
enum { QEMU_PLUGIN_INLINE_ADD_U64 = 0 };

typedef void (*translate_fn)(qemu_plugin_id_t, struct qemu_plugin_tb *);
typedef void (*execute_fn)(unsigned int vcpu, void *user);
typedef void (*exit_fn)(qemu_plugin_id_t, void *user);

void qemu_plugin_register_vcpu_tb_trans_cb(qemu_plugin_id_t, translate_fn);
void qemu_plugin_register_vcpu_insn_exec_cb(struct qemu_plugin_insn *, execute_fn, int flags, void *user);
void qemu_plugin_register_atexit_cb(qemu_plugin_id_t, exit_fn, void *user);
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *);
struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *, size_t);
size_t qemu_plugin_insn_size(const struct qemu_plugin_insn *);
uint64_t qemu_plugin_insn_vaddr(const struct qemu_plugin_insn *);
void qemu_plugin_outs(const char *);

EXPORT int qemu_plugin_version = TT_PLUGIN_API;

/* --- Counters: the total, one per halfword of code, one for all code elsewhere ---------------- */

#define CODE_BYTES (1u << 20) /* from address 0; code is linked in front of constants */
enum { TOTAL, FIRST_ADDRESS, ELSEWHERE = FIRST_ADDRESS + CODE_BYTES / 2, COUNTERS };

#if TT_PLUGIN_API == 1

void qemu_plugin_register_vcpu_tb_exec_inline(struct qemu_plugin_tb *, int op, void *counter, uint64_t add);
void qemu_plugin_register_vcpu_insn_exec_inline(struct qemu_plugin_insn *, int op, void *counter, uint64_t add);

static uint64_t counters[COUNTERS];

static void create_counters(void)
{
}

static void count_block(struct qemu_plugin_tb *tb, uint64_t add)
{
    qemu_plugin_register_vcpu_tb_exec_inline(tb, QEMU_PLUGIN_INLINE_ADD_U64, &counters[TOTAL], add);
}

static void count_insn(struct qemu_plugin_insn *insn, size_t counter)
{
    qemu_plugin_register_vcpu_insn_exec_inline(insn, QEMU_PLUGIN_INLINE_ADD_U64, &counters[counter], 1);
}

#else

/* Counters live in memory of QEMU's, a copy per core; the machines here have one core. */
struct qemu_plugin_scoreboard;
typedef struct {
    struct qemu_plugin_scoreboard *score;
    size_t offset;
} qemu_plugin_u64;

struct qemu_plugin_scoreboard *qemu_plugin_scoreboard_new(size_t bytes);
void *qemu_plugin_scoreboard_find(struct qemu_plugin_scoreboard *, unsigned int vcpu);
void qemu_plugin_register_vcpu_tb_exec_inline_per_vcpu(struct qemu_plugin_tb *, int op, qemu_plugin_u64, uint64_t add);
void qemu_plugin_register_vcpu_insn_exec_inline_per_vcpu(struct qemu_plugin_insn *, int op, qemu_plugin_u64,
                                                         uint64_t add);

static struct qemu_plugin_scoreboard *scoreboard;
#define counters ((uint64_t *)qemu_plugin_scoreboard_find(scoreboard, 0))

static qemu_plugin_u64 counter_handle(size_t counter)
{
    return (qemu_plugin_u64){scoreboard, counter * sizeof(uint64_t)};
}

static void create_counters(void)
{
    scoreboard = qemu_plugin_scoreboard_new(COUNTERS * sizeof(uint64_t));
}

static void count_block(struct qemu_plugin_tb *tb, uint64_t add)
{
    qemu_plugin_register_vcpu_tb_exec_inline_per_vcpu(tb, QEMU_PLUGIN_INLINE_ADD_U64, counter_handle(TOTAL), add);
}

static void count_insn(struct qemu_plugin_insn *insn, size_t counter)
{
    qemu_plugin_register_vcpu_insn_exec_inline_per_vcpu(insn, QEMU_PLUGIN_INLINE_ADD_U64, counter_handle(counter), 1);
}

#endif

#if TT_PLUGIN_API < 3

const void *qemu_plugin_insn_data(const struct qemu_plugin_insn *);

static void copy_code(const struct qemu_plugin_insn *insn, void *to, size_t bytes)
{
    memcpy(to, qemu_plugin_insn_data(insn), bytes);
}

#else

size_t qemu_plugin_insn_data(const struct qemu_plugin_insn *, void *to, size_t bytes);

static void copy_code(const struct qemu_plugin_insn *insn, void *to, size_t bytes)
{
    (void)qemu_plugin_insn_data(insn, to, bytes);
}

#endif

/* --- Stretches ------------------------------------------------------------------------------- */

#define MOV_R10_R10 0x46D2u
#define MOV_R11_R11 0x46DBu

static uint64_t at_begin;
static bool inside;
static FILE *out;
static const char *profile_path;
static uint64_t collected[COUNTERS]; /* by address, summed over all stretches */
static size_t used_counters = FIRST_ADDRESS;

static void fail(const char *message)
{
    qemu_plugin_outs(message);
    fprintf(stderr, "%s", message);
    fflush(stderr);
    _Exit(70);
}

static void begin(unsigned int vcpu, void *user)
{
    (void)vcpu, (void)user;
    if (inside) {
        fail("count_instructions: a stretch begins inside another\n");
    }
    inside = true;
    memset(counters + FIRST_ADDRESS, 0, (used_counters - FIRST_ADDRESS) * sizeof(uint64_t));
    at_begin = counters[TOTAL];
}

static void end(unsigned int vcpu, void *user)
{
    (void)vcpu, (void)user;
    if (!inside) {
        fail("count_instructions: a stretch ends that did not begin\n");
    }
    inside = false;
    fprintf(out, "%" PRIu64 "\n", counters[TOTAL] - at_begin);
    fflush(out); /* a run that is cut off keeps what it has counted */
    for (size_t i = FIRST_ADDRESS; i < used_counters; ++i) {
        collected[i] += counters[i];
    }
}

/* --- Translation ----------------------------------------------------------------------------- */

/* The first halfword tells: no longer instruction begins like a marker. The size does not: behind an
 * instruction that ends two bytes before its page does, QEMU 7.2 peeks at the next one and counts it in. */
static uint16_t marker(const struct qemu_plugin_insn *insn)
{
    uint16_t code;
    if (qemu_plugin_insn_size(insn) < sizeof code) {
        return 0;
    }
    copy_code(insn, &code, sizeof code); /* both little endian */
    return code == MOV_R10_R10 || code == MOV_R11_R11 ? code : 0;
}

static void count_address(struct qemu_plugin_insn *insn)
{
    const uint64_t address = qemu_plugin_insn_vaddr(insn);
    const size_t counter = address < CODE_BYTES ? FIRST_ADDRESS + (size_t)address / 2 : ELSEWHERE;
    if (counter >= used_counters) {
        used_counters = counter + 1;
    }
    count_insn(insn, counter);
}

static void translated(qemu_plugin_id_t id, struct qemu_plugin_tb *tb)
{
    (void)id;
    const size_t count = qemu_plugin_tb_n_insns(tb);
    bool marked = false;
    for (size_t i = 0; i < count; ++i) {
        marked = marked || marker(qemu_plugin_tb_get_insn(tb, i));
    }
    if (!marked) {
        count_block(tb, count);
    }
    for (size_t i = 0; i < count && (marked || profile_path); ++i) {
        struct qemu_plugin_insn *insn = qemu_plugin_tb_get_insn(tb, i);
        const uint16_t mark = marker(insn);
        if (mark) {
            qemu_plugin_register_vcpu_insn_exec_cb(insn, mark == MOV_R10_R10 ? begin : end, QEMU_PLUGIN_CB_NO_REGS, NULL);
            continue;
        }
        if (marked) {
            count_insn(insn, TOTAL);
        }
        if (profile_path) {
            count_address(insn);
        }
    }
}

/* --- Start and end --------------------------------------------------------------------------- */

static void finish(qemu_plugin_id_t id, void *user)
{
    (void)id, (void)user;
    fclose(out);
    if (!profile_path) {
        return;
    }
    FILE *file = fopen(profile_path, "w");
    if (!file) {
        fail("count_instructions: the profile cannot be written\n");
    }
    for (size_t i = FIRST_ADDRESS; i < used_counters; ++i) {
        if (collected[i]) {
            fprintf(file, "%zu %" PRIu64 "\n", 2 * (i - FIRST_ADDRESS), collected[i]);
        }
    }
    fclose(file);
}

EXPORT int qemu_plugin_install(qemu_plugin_id_t id, const void *info, int argc, char **argv)
{
    (void)info;
    for (int i = 0; i < argc; ++i) {
        if (strncmp(argv[i], "out=", 4) == 0) {
            out = fopen(argv[i] + 4, "w");
        } else if (strncmp(argv[i], "profile=", 8) == 0) {
            profile_path = strdup(argv[i] + 8); /* argv does not outlive this call */
        }
    }
    if (!out) {
        fprintf(stderr, "count_instructions: no out=FILE that can be written\n");
        return -1;
    }
    create_counters();
    qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
    qemu_plugin_register_atexit_cb(id, finish, NULL);
    return 0;
}
