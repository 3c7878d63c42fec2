"""kr8s: objects by kind, labels, scaling, waiting, watching."""

import asyncio

import kr8s
from kr8s.asyncio.objects import ConfigMap, Deployment, Namespace

SPACE = "kr8s"


async def main():
    space = await Namespace({"metadata": {"name": SPACE}})
    await space.create()
    made = await ConfigMap({"metadata": {"name": "one", "namespace": SPACE}, "data": {"a": "1"}})
    await made.create()
    assert await made.exists()
    await made.label(of="kr8s")
    await made.patch({"data": {"b": "2"}})
    await made.refresh()
    assert made.raw["data"] == {"a": "1", "b": "2"}, made.raw

    found = [it async for it in kr8s.asyncio.get("configmaps", namespace=SPACE, label_selector="of=kr8s")]
    assert [it.name for it in found] == ["one"], found

    deployment = await Deployment({
        "metadata": {"name": "web", "namespace": SPACE},
        "spec": {
            "replicas": 0,
            "selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": "none"}]}},
        },
    })
    await deployment.create()
    # kr8s takes it that there is a status, which the controller writes.
    while "status" not in deployment.raw:
        await asyncio.sleep(0.1)
        await deployment.refresh()
    await deployment.wait("condition=Available", timeout=60)

    async def first_event():
        api = await kr8s.asyncio.api()
        async for kind, it in api.watch("configmaps", namespace=SPACE, label_selector="of=watched"):
            return kind, it.name

    event = asyncio.create_task(first_event())
    await asyncio.sleep(1)
    watched = await ConfigMap({"metadata": {"name": "two", "namespace": SPACE, "labels": {"of": "watched"}}})
    await watched.create()
    assert await asyncio.wait_for(event, 30) == ("ADDED", "two")

    await made.delete()
    await made.wait("delete", timeout=30)
    await space.delete()
    print("all as expected")


asyncio.run(main())
