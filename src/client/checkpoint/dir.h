/*
 * dir.h - the directory of a checkpoint: made next to its final place, moved there when complete, and found
 * again. While it is being written it is called NAME.tmp-XXXXXX and locked by its writer; the next writer removes what
 * a dead one left behind. Moving it into place exchanges it with the former checkpoint in one step. On file systems
 * that cannot exchange names, the former one is moved to NAME.tq-former for a moment; a reader or writer that finds
 * only that puts it back.
 */
#ifndef TQI_CLIENT_CHECKPOINT_DIR_H
#define TQI_CLIENT_CHECKPOINT_DIR_H

#include "client/checkpoint/files.h"

/* Makes out->temp, and out->dir. */
int tqi_client_ckpt_dir_make(tqi_client_ckpt_out *out, const char *path, tq_error *err);
/* Moves it into place; the former one is then gone. */
int tqi_client_ckpt_dir_place(tqi_client_ckpt_out *out, tq_error *err);
/* Removes it if it was not moved into place. */
void tqi_client_ckpt_dir_drop(tqi_client_ckpt_out *out);
/* Opens a checkpoint's directory: TQ_EIO if there is none. */
int tqi_client_ckpt_dir_open(const char *path, int *dir, tq_error *err);

#endif
