/*
 * dispatch.h - which call the kernel ran, and with which arguments. Every decision about a call
 * depends on the low 32 bits of its number, its ABI and, for multiplexers of the 32-bit table, the
 * call behind them. A number without a row in `calls` uses the last row of its half.
 *
 * The arguments of a multiplexed call are in the caller's memory, except those of ipc. They are
 * read when the call ends: another thread may have changed them by then.
 */

/* The six arguments of the call with these saved registers (arch_*.h). */
#define SYSCALL_ARGUMENTS(a, regs, compat)                                                             \
	do {                                                                                           \
		if (compat)                                                                            \
			REGISTERS_COMPAT(a, regs);                                                     \
		else                                                                                   \
			REGISTERS(a, regs);                                                            \
	} while (0)

#define UNKNOWN_SLOT (CALL_SLOTS - 1)
#define MULTIPLEXED_SLOT (CALL_SLOTS * 2) /* first row of the multiplexed calls */
#define MULTIPLEXED 32
#define SIGSYS 31
#define SECCOMP_MODE_FILTER 2 /* the next mode: killed by a filter, since 5.16 */
#define SECCOMP_FILTERS 8 /* of a task; later ones in the chain are not examined */

/* Multiplexers of the 32-bit table (MULTIPLEXED in bpf/tables/events.py). */
enum family {
	FAMILY_NONE,
	FAMILY_SOCKETCALL, /* the first argument selects the call */
	FAMILY_IPC,	   /* likewise */
	FAMILY_STRUCT,	   /* arguments in a struct; the newer call takes them in registers */
};

struct dispatched {
	u64 a[6];
	s64 number;
	u32 slot; /* row of `calls` */
	bool compat;
};

/* The six arguments of a call at its entry. */
static __always_inline void entered_arguments(u64 *a)
{
	u64 task = current_task_btf(), regs = registers_of(task);
	SYSCALL_ARGUMENTS(a, regs, SYSCALL_IS_COMPAT(task));
}

/*
 * The row of a number. x32 numbers use the rows of the 64-bit calls, or rows of their own from
 * X32_ONLY on.
 */
static __always_inline u32 call_slot(s64 number, bool compat, s64 retval)
{
	u32 n = number;
	if (compat)
		return (n < UNKNOWN_SLOT ? n : UNKNOWN_SLOT) + CALL_SLOTS;
	if (number < 0 || !(n & X32_BIT))
		return n < X32_ONLY ? n : UNKNOWN_SLOT;
	/* most kernels have no x32 ABI */
	n &= ~X32_BIT;
	return n < UNKNOWN_SLOT && retval != -ENOSYS ? n : UNKNOWN_SLOT;
}

/* Load arguments from memory: as many 32-bit words as the row says. Branch-free. */
static __always_inline void words_as_arguments(u64 *a, u64 from, u32 count)
{
#pragma unroll
	for (u32 i = 0; i < 6; i++) {
		u32 word = 0;
		bpf_probe_read_user(&word, sizeof(word), (void *)(from + i * sizeof(word)));
		a[i] = word * LESS(i, count);
	}
}

/*
 * Reorder arguments that are not in register order or that take two registers: those of calls
 * behind ipc (ipc/syscall.c), and 64-bit arguments of 32-bit calls (arch/x86/kernel/sys_ia32.c).
 * Branch-free.
 */
static __always_inline void rearrange(u64 *a, const struct call *call)
{
	u64 passed[6];
	__builtin_memcpy(passed, a, sizeof(passed));
#pragma unroll
	for (int i = 0; i < 6; i++) {
		u64 from = call->registers[i], low = 0, high = 0;
#pragma unroll
		for (int k = 0; k < 6; k++) {
			low |= passed[k] * EQUAL(from, k + 1);
			high |= passed[k] * EQUAL(from, k);
		}
		a[i] = low | (high << 32) * (call->joined >> i & 1) * LESS(0, from);
	}
}

/*
 * Widen 32-bit arguments as the kernel does: a long keeps its sign, a 16-bit id of -1 becomes -1
 * (include/linux/highuid.h), a count of pages becomes bytes. Branch-free.
 */
static __always_inline void compat_values(u64 *a, const struct call *call)
{
#pragma unroll
	for (int i = 0; i < 6; i++) {
		u64 negative = a[i] >> 31 & 1 & (call->extended >> i);
		u64 nobody = EQUAL((u16)a[i], 0xffff) & (call->ids >> i);
		a[i] |= negative * 0xffffffff00000000 | nobody * 0xffff0000;
		a[i] &= ~((call->ids >> i & 1 & ~nobody) * 0xffff0000);
		a[i] <<= 12 * (call->pages >> i & 1);
	}
}

static __always_inline enum family family_of(const struct dispatched *d)
{
	if (!d->compat)
		return FAMILY_NONE;
	switch (d->number) {
	case SYSCALL_SOCKETCALL:
		return FAMILY_SOCKETCALL;
	case SYSCALL_IPC:
		return FAMILY_IPC;
	case SYSCALL_OLD_MMAP:
	case SYSCALL_OLD_SELECT:
		return FAMILY_STRUCT;
	default:
		return FAMILY_NONE;
	}
}

/* Replace a multiplexer by the call behind it, if that call has a row. */
static __always_inline void demultiplex(struct dispatched *d, enum family family)
{
	u32 inner = d->a[0];
	if (family == FAMILY_IPC)
		inner &= 0xffff;
	if (family == FAMILY_STRUCT)
		inner = d->number == SYSCALL_OLD_SELECT;
	if (inner >= MULTIPLEXED)
		return;
	u32 slot = MULTIPLEXED_SLOT + (family - 1) * MULTIPLEXED + inner;
	struct call *call = calls.lookup(&slot);
	if (!call || !call->arguments)
		return;
	d->slot = slot;
	if (family == FAMILY_IPC)
		rearrange(d->a, call);
	else
		words_as_arguments(d->a, d->a[family == FAMILY_SOCKETCALL], call->arguments);
}

/*
 * HEAD_NOT_RUN if seccomp refused the call with SIGSYS. Such a call "returns" the contents of its
 * number register. The kernel forces the signal, so it is never blocked. A SIGSYS that the process
 * itself keeps pending is blocked, and is not mistaken for it.
 */
static __always_inline u32 refused_flag(u64 task, u64 regs, s64 retval)
{
	u64 forced = LOAD8(task, KERNEL_task_struct_pending_signal) & ~LOAD8(task, KERNEL_task_struct_blocked);
	u64 filtered = LESS(SECCOMP_MODE_FILTER - 1, LOAD4(task, KERNEL_task_struct_seccomp_mode));
	/* branch-free: the verifier would check the rest of the call twice */
	return (forced >> (SIGSYS - 1) & 1) * filtered * EQUAL(retval, SYSCALL_REGISTER(regs)) * HEAD_NOT_RUN;
}

/*
 * HEAD_ANSWERED if another process may have supplied the result (SECCOMP_RET_USER_NOTIF): one of
 * the task's filters has a listener. The exit does not show whether the listener did. A chain of
 * more than SECCOMP_FILTERS filters is assumed to have one.
 */
static __always_inline u32 answered_flag(u64 task)
{
#ifdef KERNEL_seccomp_filter_notif
	if (LOAD4(task, KERNEL_task_struct_seccomp_mode) != SECCOMP_MODE_FILTER)
		return 0;
	u64 found = 0, filter = LOAD8(task, KERNEL_task_struct_seccomp_filter);
#pragma unroll
	for (int i = 0; i < SECCOMP_FILTERS; i++) {
		found |= KREAD(u64, filter + KERNEL_seccomp_filter_notif);
		filter = KREAD(u64, filter + KERNEL_seccomp_filter_prev);
	}
	found |= filter;
	return LESS(0, found) * HEAD_ANSWERED;
#else
	return 0;
#endif
}

static __always_inline void dispatched_call(struct dispatched *d, u64 task, u64 regs, s64 retval)
{
	d->compat = SYSCALL_IS_COMPAT(task);
	d->number = SYSCALL_NUMBER(regs);
	d->slot = call_slot(d->number, d->compat, retval);
	SYSCALL_ARGUMENTS(d->a, regs, d->compat);
}
