import numpy as np

from streamer.factors.blend import blend, unit


def blend_one(recent, lasting, idle_s, half_life_s=1800.0):
    vectors = np.array([[recent, lasting]], np.float32)
    return blend(vectors, np.array([idle_s]), half_life_s)[0]


def test_a_unit_vector_has_length_1_and_the_same_direction():
    np.testing.assert_allclose(unit(np.array([[3.0, 4.0], [-2.0, 0.0]])), [[0.6, 0.8], [-1, 0]])


def test_the_unit_of_a_zero_vector_is_zero():
    assert not unit(np.zeros((2, 3), np.float32)).any()


def test_lengths_whose_square_no_float32_can_hold_are_no_problem():
    huge = np.array([3e38, 0.0, -3e38], np.float32)
    np.testing.assert_allclose(unit(huge), [0.5**0.5, 0.0, -(0.5**0.5)])
    np.testing.assert_allclose(blend_one(huge, huge, idle_s=60.0), unit(huge), rtol=1e-6)
    tiny = np.array([1e-40, 0.0], np.float32)
    np.testing.assert_allclose(unit(tiny), [1.0, 0.0])


def test_a_viewer_who_is_active_now_gets_the_recent_direction():
    np.testing.assert_allclose(blend_one([0.0, 5.0], [7.0, 0.0], idle_s=0.0), [0.0, 1.0])


def test_after_one_half_life_both_directions_count_half():
    blended = blend_one([0.0, 5.0], [7.0, 0.0], idle_s=60.0, half_life_s=60.0)
    np.testing.assert_allclose(blended, [0.5, 0.5])


def test_after_two_half_lives_the_recent_direction_counts_a_quarter():
    # g = 2^(-3600 / 1800) = 1/4; unit(3, 4) = (.6, .8); unit(0, -2) = (0, -1)
    blended = blend_one([3.0, 4.0], [0.0, -2.0], idle_s=3600.0)
    np.testing.assert_allclose(blended, [0.15, 0.2 - 0.75], rtol=1e-6)


def test_an_event_of_the_future_counts_as_one_of_now():
    np.testing.assert_allclose(blend_one([0.0, 5.0], [7.0, 0.0], idle_s=-300.0), [0.0, 1.0])


def test_after_years_only_the_lasting_direction_is_left():
    np.testing.assert_allclose(blend_one([0.0, 5.0], [7.0, 0.0], idle_s=1e9), [1.0, 0.0])


def test_each_user_of_a_batch_is_blended_alone():
    rng = np.random.default_rng(7)
    vectors = rng.normal(size=(20, 2, 6)).astype(np.float32)
    idle_s = rng.exponential(3000.0, size=20)
    together = blend(vectors, idle_s, 1800.0)
    for row in range(20):
        alone = blend(vectors[row : row + 1], idle_s[row : row + 1], 1800.0)
        np.testing.assert_array_equal(together[row], alone[0])
    assert together.dtype == np.float32
