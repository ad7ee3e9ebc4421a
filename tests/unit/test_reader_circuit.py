from streamer.reader.circuit import Circuit


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


def test_calls_are_admitted_while_they_succeed():
    circuit = Circuit(1.0, Clock())
    for _ in range(3):
        assert circuit.admits()
        circuit.succeed()


def test_after_a_failure_nothing_is_admitted_for_a_second():
    clock = Clock()
    circuit = Circuit(1.0, clock)
    assert circuit.admits()
    circuit.fail()
    clock.now += 0.99
    assert not any(circuit.admits() for _ in range(1000))


def test_then_one_trial_a_second_is_admitted():
    clock = Clock()
    circuit = Circuit(1.0, clock)
    circuit.fail()
    admitted = 0
    for _ in range(100):
        clock.now += 0.1
        if circuit.admits():
            admitted += 1
            circuit.fail()
    assert 9 <= admitted <= 10


def test_a_trial_that_has_not_ended_keeps_the_others_out():
    clock = Clock()
    circuit = Circuit(1.0, clock)
    circuit.fail()
    clock.now += 1.0
    assert circuit.admits()
    assert not circuit.admits()


def test_a_trial_that_succeeds_lets_everybody_in():
    clock = Clock()
    circuit = Circuit(1.0, clock)
    circuit.fail()
    clock.now += 1.0
    assert circuit.admits()
    circuit.succeed()
    assert circuit.admits()
    assert circuit.admits()
