"""The plain life of a gang: it meets, trains, completes, and leaves nothing behind."""


def test_four_replicas_complete(make_gang):
    gang = make_gang(4)
    gang.start_all()
    report = gang.at_step(30)
    assert report.epoch == 1
    assert [m.state for m in report.members] == ["running"] * 4
    last = gang.until(lambda r: r.state == "complete")
    assert last.progress.step == 60
    assert gang.exit_codes() == {0: 0, 1: 0, 2: 0, 3: 0}
    final = gang.termination(0)
    assert final["state"] == "complete"
    assert final["progress"]["step"] == 60
    assert [entry["step"] for entry in gang.history()] == list(range(1, 61))
    assert gang.leftovers() == []
