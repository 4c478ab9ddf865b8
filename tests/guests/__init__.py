"""Tests on other kernels: Debian's, each booted by qemu with the checkout in it (`make test-kernels`).

    packages.py   what is fetched from Debian's mirror: qemu, kernels, a userland
    machine.py    images made of that, and a boot that runs a script
    __main__.py   the kernels, one after the other

Nothing is installed on this machine: everything stands in one folder outside of the checkout. qemu emulates the CPU
(KVM is not needed), so what a guest does takes ten times as long, and says nothing about speed.
"""
