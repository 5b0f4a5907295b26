/*
 * Assertions and a log, both compiled out unless the application brings them: compile with -DTT_PORT='"my_port.h"', a
 * header that defines any of
 *
 *     #define TT_ASSERT(condition) ...   a promise that this code makes to itself is broken: stop
 *     #define TT_LOG(...) ...            printf's arguments: what a training or a load decided
 */
#ifndef TT_PORT_H
#define TT_PORT_H

#ifdef TT_PORT
#include TT_PORT
#endif

#ifndef TT_ASSERT
#define TT_ASSERT(condition) ((void)sizeof(condition)) /* not evaluated, and its operands count as used */
#endif

#ifndef TT_LOG
#define TT_LOG(...) ((void)0)
#endif

#endif
