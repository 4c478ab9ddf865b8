/*
 * kernel.h - kernel memory access. KERNEL_x_y are offsets from the running kernel's BTF, passed by
 * -D. bcc would rewrite a dereference of a kernel pointer into a helper call, so pointers are plain
 * u64 here and loads are explicit. LOADn is one instruction, allowed on pointers that the verifier
 * knows by BTF (those reached from current_task_btf()). KREAD is a helper call and takes any
 * address.
 */
#ifndef __always_inline
#define __always_inline inline __attribute__((always_inline))
#endif

static u64 (*ktime_boot_ns)(void) = (void *)125; /* bpf_ktime_get_boot_ns, since 5.8 */

#define KREAD(type, address)                                                                           \
	({                                                                                             \
		type v_ = 0;                                                                           \
		bpf_probe_read_kernel(&v_, sizeof(v_), (void *)(address));                             \
		v_;                                                                                    \
	})
#define LOAD_BY_TYPE(type, size, p, offset)                                                            \
	({                                                                                             \
		u64 v_;                                                                                \
		asm volatile("%0 = *(" size " *)(%1 + %2)" : "=r"(v_) : "r"((u64)(p)), "i"(offset));   \
		(type) v_;                                                                             \
	})
#ifdef HAVE_TASK
static u64 (*current_task_btf)(void) = (void *)158; /* bpf_get_current_task_btf, since 5.11 */
#define LOAD8(p, offset) LOAD_BY_TYPE(u64, "u64", p, offset)
#define LOAD4(p, offset) LOAD_BY_TYPE(u32, "u32", p, offset)
#else
/* Older kernels have no BTF pointer to the task: helper calls read all of it. */
static u64 (*current_task_btf)(void) = (void *)35; /* bpf_get_current_task */
#define LOAD8(p, offset) KREAD(u64, (u64)(p) + (offset))
#define LOAD4(p, offset) KREAD(u32, (u64)(p) + (offset))
#endif
/*
 * The current task, for programs that run rarely. For each pointer loaded through a trusted
 * pointer, the verifier searches all kernel types by name (type_is_trusted() in
 * kernel/bpf/verifier.c). This takes most of the load time. bpf_rdonly_cast(), since 6.2, removes
 * the trust; in exchange each load costs some nanoseconds more. bcc cannot emit the call:
 * bpf/programs/link.py does.
 */
static __always_inline u64 current_task_cold(void)
{
#if defined(KERNEL_rdonly_cast) && defined(HAVE_TASK)
	return ((u64 (*)(u64, u32))(KERNEL_FUNCTION | KERNEL_rdonly_cast))(current_task_btf(), KERNEL_task_struct);
#else
	return current_task_btf();
#endif
}

#ifdef HAVE_REGISTERS
static u64 (*task_pt_regs)(u64 task) = (void *)175; /* bpf_task_pt_regs, since 5.15 */
#define LOAD_REGISTER(regs, offset) LOAD8(regs, offset)
#define LOAD_REGISTER4(regs, offset) LOAD4(regs, offset)
#else
#define LOAD_REGISTER(regs, offset) KREAD(u64, (u64)(regs) + (offset))
#define LOAD_REGISTER4(regs, offset) KREAD(u32, (u64)(regs) + (offset))
#endif

#define THREAD_BYTES 16384 /* THREAD_SIZE of x86-64 and arm64, without KASAN */

/* The saved registers of the system call that a task is in. */
static __always_inline u64 registers_of(u64 task)
{
#ifdef HAVE_REGISTERS
	return task_pt_regs(task);
#else
	/* they are at the top of the task's stack: task_pt_regs() in the kernel's asm/processor.h */
	return LOAD8(task, KERNEL_task_struct_stack) + THREAD_BYTES - KERNEL_pt_regs_size;
#endif
}

static __always_inline u64 current_registers(void)
{
	return registers_of(current_task_btf());
}

/*
 * Claim what only one program per CPU may use at a time. This is a full barrier: user space sees
 * the claim before anything done under it. Kernels before 5.12 have no atomics that return the old
 * value. Programs are not preempted there, and a program that interrupts another one releases its
 * claim before it returns.
 */
static __always_inline bool claim(u64 *busy)
{
#ifdef HAVE_EXCHANGE
	return !__sync_lock_test_and_set(busy, 1);
#else
	if (*(volatile u64 *)busy)
		return false;
	__sync_fetch_and_add(busy, 1);
	return true;
#endif
}

/*
 * bpf_probe_read_user_str(): bytes including the NUL, negative on a fault. Older kernels return 0
 * for an empty string.
 */
static __always_inline long read_user_text(void *to, u32 bytes, u64 from)
{
	long n = bpf_probe_read_user_str(to, bytes, (void *)from);
	return n + !n;
}

static __always_inline long read_text(void *to, u32 bytes, u64 from, bool user)
{
	return user ? read_user_text(to, bytes, from) : bpf_probe_read_kernel_str(to, bytes, (void *)from);
}

/* A member of a struct of which the leading part was read at once. */
#define FIELD(head, type, offset) (*(type *)((head)->bytes + (offset)))
/* 1 or 0 without a branch: each branch in a loop doubles the states that the verifier checks. */
#define LESS(a, b) (((~(u64)(a) & (u64)(b)) | ((~(u64)(a) | (u64)(b)) & ((u64)(a) - (u64)(b)))) >> 63)
#define EQUAL(a, b) (1 - LESS(0, (u64)(a) ^ (u64)(b)))
/* Keep the compiler from deriving a bounded value again from the unbounded one. */
#define OPAQUE(v) asm volatile("" : "+r"(v))
/*
 * A number from 1 to `most`, a power of two. The mask shows the bound to older verifiers, which
 * forget comparisons.
 */
#define BOUNDED(n, most)                                                                               \
	({                                                                                             \
		u64 n_ = (n) - 1;                                                                      \
		OPAQUE(n_);                                                                            \
		(n_ & ((most) - 1)) + 1;                                                               \
	})

/*
 * Clear a task's name, read as two words, behind its NUL: older kernels leave old bytes there.
 * `open` is all ones until a NUL is found. The lowest bit in `nuls` belongs to the first zero byte.
 */
static __always_inline u64 up_to_nul(u64 word, u64 *open)
{
	u64 nuls = (word - 0x0101010101010101ULL) & ~word & 0x8080808080808080ULL;
	word &= (((nuls & -nuls) >> 7) - 1) & *open;
	*open &= 0 - EQUAL(nuls, 0);
	return word;
}

/* A number in the scope's conditions. The compiled code does not depend on it: the loader patches it in. */
#define SCOPE_NUMBER(n)                                                                                \
	({                                                                                             \
		u64 v_;                                                                                \
		asm("%0 = %1 ll" : "=r"(v_) : "i"(SCOPE_NUMBERS | (n)));                               \
		v_;                                                                                    \
	})

#define COMPONENT_BYTES 256 /* NAME_MAX, plus the NUL */

static __always_inline u32 round_up(u32 n, u32 to)
{
	return (n + to - 1) & ~(to - 1);
}

#define ENOSPC 28
#define ENOSYS 38
#define EFAULT 14
#define PF_KTHREAD 0x00200000
