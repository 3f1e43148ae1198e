/*
 * checkpoint_dir.h - the directory of a checkpoint: made beside its place, put there whole, found again.
 *
 * While it is written it is NAME.tmp-XXXXXX, locked by its writer; what a writer that died has left is removed by the next
 * one.  Putting it into its place exchanges it with the former one in one step.  File systems that cannot exchange move the
 * former one to NAME.tq-former for a moment; whoever finds only that puts it back.
 */
#ifndef TQI_CLIENT_CHECKPOINT_DIR_H
#define TQI_CLIENT_CHECKPOINT_DIR_H

#include "client/checkpoint_files.h"

/* Makes out->temp, and out->dir. */
int tqi_ckpt_dir_make(tqi_ckpt_out *out, const char *path, tq_error *err);
/* Puts it into its place; the former one is gone then. */
int tqi_ckpt_dir_place(tqi_ckpt_out *out, tq_error *err);
/* Removes it if it was not put into its place. */
void tqi_ckpt_dir_drop(tqi_ckpt_out *out);
/* Opens a checkpoint's directory: TQ_EIO when there is none. */
int tqi_ckpt_dir_open(const char *path, int *dir, tq_error *err);

#endif
