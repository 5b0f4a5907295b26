/* Checks for tests in C, on the host and on an emulated core: the first that fails ends the program. */
#ifndef TT_TEST_CHECK_H
#define TT_TEST_CHECK_H

#include <stdint.h>

#if defined(__arm__)

#include "semihosting.h"
#include "startup.h"

_Noreturn static inline void check_end(const char *what)
{
    tt_print(what);
    tt_print("\n");
    tt_exit(what[0] == 'o' ? 0u : 1u);
}

_Noreturn void tt_fault(uint32_t pc, uint32_t cause)
{
    (void)pc, (void)cause;
    check_end("fault");
}

#else

#include <stdio.h>
#include <stdlib.h>

_Noreturn static inline void check_end(const char *what)
{
    puts(what);
    exit(what[0] == 'o' ? 0 : 1);
}

#endif

#define CHECK_TEXT(x) #x
#define CHECK_LINE(x) CHECK_TEXT(x)
#define CHECK(condition)                                                                 \
    do {                                                                                 \
        if (!(condition)) {                                                              \
            check_end("failed: " "line " CHECK_LINE(__LINE__) ": " #condition); \
        }                                                                                \
    } while (0)

#endif
