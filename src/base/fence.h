/*
 * fence.h - the fence for readers of memory that its owner may change at the same time (a seqlock); store/fence.h has
 * the copy. Such a reader detects afterwards that the bytes were changed, and discards them. By the letter of C that
 * is a data race, as in every seqlock over bulk data (H. Boehm, "Can seqlocks get along with programming language
 * memory models?", MSPC 2012). It is harmless here, because the bytes are not used before the check, and the fence
 * orders the read before the check. ThreadSanitizer does not model fences and would report the read. In its builds,
 * this read (and nothing else) is marked with the sanitizer's annotation for intended races.
 */
#ifndef TQI_BASE_FENCE_H
#define TQI_BASE_FENCE_H

#include <stdatomic.h>

#if defined(__SANITIZE_THREAD__)
#define TQI_TSAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define TQI_TSAN 1
#endif
#endif

#ifdef TQI_TSAN
void AnnotateIgnoreReadsBegin(const char *file, int line);
void AnnotateIgnoreReadsEnd(const char *file, int line);
#define TQI_FENCE(order) atomic_signal_fence(order)
#define TQI_RACY_BEGIN() AnnotateIgnoreReadsBegin(__FILE__, __LINE__)
#define TQI_RACY_END()   AnnotateIgnoreReadsEnd(__FILE__, __LINE__)
#else
#define TQI_FENCE(order) atomic_thread_fence(order)
#define TQI_RACY_BEGIN() ((void)0)
#define TQI_RACY_END()   ((void)0)
#endif

#endif
