/*
 * kernel.h - reading the kernel. KERNEL_x_y are offsets taken from the running kernel's BTF; they
 * come in by -D. bcc would rewrite a dereference of a kernel pointer into a helper call, so pointers
 * are plain u64 here and loads are spelt out: LOADn is one instruction, allowed on pointers that the
 * verifier knows by BTF (those reached from current_task_btf()); KREAD is a helper call and takes any.
 */
#ifndef __always_inline
#define __always_inline inline __attribute__((always_inline))
#endif

static u64 (*current_task_btf)(void) = (void *)158; /* bpf_get_current_task_btf, since 5.11 */
static u64 (*task_pt_regs)(u64 task) = (void *)175; /* bpf_task_pt_regs, since 5.15 */
static u64 (*ktime_boot_ns)(void) = (void *)125;    /* bpf_ktime_get_boot_ns, since 5.8 */

#define LOAD8(p, offset)                                                                               \
	({                                                                                             \
		u64 v_;                                                                                \
		asm volatile("%0 = *(u64 *)(%1 + %2)" : "=r"(v_) : "r"((u64)(p)), "i"(offset));        \
		v_;                                                                                    \
	})
#define LOAD4(p, offset)                                                                               \
	({                                                                                             \
		u64 v_;                                                                                \
		asm volatile("%0 = *(u32 *)(%1 + %2)" : "=r"(v_) : "r"((u64)(p)), "i"(offset));        \
		(u32) v_;                                                                              \
	})
#define KREAD(type, address)                                                                           \
	({                                                                                             \
		type v_ = 0;                                                                           \
		bpf_probe_read_kernel(&v_, sizeof(v_), (void *)(address));                             \
		v_;                                                                                    \
	})
/*
 * The task that runs, for programs that run seldom. Through a pointer that it trusts the verifier searches all of the
 * kernel's types by name for each pointer that is loaded (type_is_trusted() in kernel/bpf/verifier.c): that is most of the
 * time that loading takes. bpf_rdonly_cast(), since 6.2, takes the trust away; in exchange each load costs some
 * nanoseconds more. bcc cannot make the call: bpf/link.py does.
 */
static __always_inline u64 current_task_cold(void)
{
#ifdef KERNEL_rdonly_cast
	return ((u64 (*)(u64, u32))(KERNEL_FUNCTION | KERNEL_rdonly_cast))(current_task_btf(), KERNEL_task_struct);
#else
	return current_task_btf();
#endif
}

static __always_inline u64 current_registers(void)
{
	return task_pt_regs(current_task_btf());
}

/* A member of a part of a struct that was read as a whole. */
#define FIELD(head, type, offset) (*(type *)((head)->bytes + (offset)))
/* Keep the compiler from deriving a bounded value a second time from an unbounded one. */
/* 1 or 0 without a branch: each branch in a loop doubles what the verifier has to look at. */
#define LESS(a, b) (((~(u64)(a) & (u64)(b)) | ((~(u64)(a) | (u64)(b)) & ((u64)(a) - (u64)(b)))) >> 63)
#define OPAQUE(v) asm volatile("" : "+r"(v))

/* A number of the scope. What is compiled is the same whatever it is: the loader puts it in. */
#define SCOPE_NUMBER(n)                                                                                \
	({                                                                                             \
		u64 v_;                                                                                \
		asm("%0 = %1 ll" : "=r"(v_) : "i"(SCOPE_NUMBERS | (n)));                               \
		v_;                                                                                    \
	})

#define COMPONENT_BYTES 256 /* NAME_MAX, and a NUL */

static __always_inline u32 round_up(u32 n, u32 to)
{
	return (n + to - 1) & ~(to - 1);
}

#define ENOSPC 28
#define ENOSYS 38
#define EFAULT 14
#define PF_KTHREAD 0x00200000
