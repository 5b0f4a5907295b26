/* Choosing what learns, for tt_select() and for a training that finds nothing chosen. */
#ifndef TT_SELECT_H
#define TT_SELECT_H

#include "tt_support.h"

/* tt_select() from where nothing is learnt and, if its selector looks at samples, they are enrolled. */
tt_status tt_select_enrolled(tt_session *s, const tt_select_options *options, tt_source *from);

#endif
