/*
 * check_parts.h - the parts of the checks on the history; each is called for every op, or once, after trail_update.
 */
#ifndef TQ_SIM_CHECK_PARTS_H
#define TQ_SIM_CHECK_PARTS_H

#include "oracle/trail.h"

/* "op 17 (put of client-2.1)": for messages; lasts for eight calls. */
const char *check_name(const history_op *op);
/* The last commit that the op may have been a part of: when it ended, or now. */
uint64_t check_until(const history_op *op);

/* Whether a client of the history had that pid. */
bool check_is_client(uint64_t pid);
/* Whether the client was closed in order in that life. */
bool check_closed(uint32_t client, uint32_t life);
/* Whether the seed had faults that take a connection away, or make an answer late, other than the end of a process. */
bool check_may_be_cut(void);

/* check_commits.c: which commits are of which op, and whether they are what it returned. */
void check_matches(void);
void check_op_commits(const history_op *op);
/* Every commit is of an op; every claim that was committed was returned, given back, or its client died. */
void check_all_commits(bool settled);

/* check_queries.c: what calls that change nothing returned was so at one point between invocation and return. */
void check_op_query(const history_op *op);

/* check_tags.c: keys, groups and tags that a meta has are those of its samples at c; else the reason is in *why. */
bool check_tags_at(const history_op *op, uint64_t c, const char **why);
/* What a put says about the other fields of its samples. */
void check_op_others(const history_op *op, const witness_commit *commit);

/* check_values.c: what was read was so at one point from the making of the meta on. */
void check_op_values(const history_op *op);

/* check_codes.c: errors are legal, and no op outlives its deadline. */
void check_op_code(const history_op *op);
void check_op_deadline(const history_op *op);

/* check_claims.c: claims of samplers that are known here get what they must, and do not wait although their view holds
 * enough. */
void check_op_pick(const history_op *op, const witness_commit *take);
void check_op_served(const history_op *op);

#endif
