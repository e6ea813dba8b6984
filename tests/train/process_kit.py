"""One of several processes of a run: `python process_kit.py RANK PORT FOLDER EPOCHS`; prints the losses of its history as JSON."""

import json
import os
import sys


class Stop(Exception):
    pass


def main(rank: int, port: str, folder: str, epochs: int) -> None:
    os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=2 --xla_backend_optimization_level=0"
    import jax

    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(f"127.0.0.1:{port}", 2, rank)
    from train_kit import LINF, blobs, mlp, weights

    import jaxsec

    def stop(row):
        if row["epoch"] + 1 == epochs:
            raise Stop

    mesh = jax.make_mesh((4,), ("rows",))
    over = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("rows"))
    rows = [jax.make_array_from_callback(a.shape, over, lambda i, a=a: a[i]) for a in blobs(64)]
    try:
        fit = jaxsec.fit(
            mlp, tuple(rows), variables=weights(), recipe=jaxsec.train.IBPTraining(threat=LINF), epochs=3, batch_size=16, validation=0.25,
            validation_attack=jaxsec.FGSM(), key=jax.random.key(0), out=folder, progress=stop,
        )  # fmt: skip
    except Stop:
        sys.stdout.flush()
        os._exit(0)  # as if killed: the epoch's checkpoint is not written yet
    assert not any(v.is_fully_addressable for v in jax.tree.leaves(fit.net.params))
    print(json.dumps([[row[k] for k in ("loss", "validation_robust", "validation_certified")] for row in fit.history]))


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4]))
