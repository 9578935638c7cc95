using System.Numerics;

namespace PeftServer.Engine.Evaluation;

/// <summary>
/// How long the longest common subsequence of one text with others is, 64 characters of it at a time (<see href="https://doi.org/10.1007/978-3-540-30213-1_9">Hyyrö 2004</see>).
/// </summary>
internal sealed class CommonSubsequence
{
    private readonly Dictionary<int, ulong[]> _places = [];
    private readonly ulong[] _state;
    private readonly int _length;

    public CommonSubsequence(ReadOnlySpan<int> pattern)
    {
        _length = pattern.Length;
        _state = new ulong[(pattern.Length + 63) / 64];
        for (var i = 0; i < pattern.Length; i++)
        {
            if (!_places.TryGetValue(pattern[i], out var mask))
            {
                _places[pattern[i]] = mask = new ulong[_state.Length];
            }

            mask[i / 64] |= 1UL << (i % 64);
        }
    }

    /// <summary>The length in common with <paramref name="text"/>.</summary>
    public int With(ReadOnlySpan<int> text)
    {
        Array.Fill(_state, ulong.MaxValue); // a zero marks a character of the pattern that is in the subsequence
        foreach (var character in text)
        {
            if (!_places.TryGetValue(character, out var mask))
            {
                continue;
            }

            var carry = 0UL;
            for (var word = 0; word < _state.Length; word++)
            {
                var before = _state[word];
                var hits = before & mask[word];
                var sum = before + hits;
                var moved = sum + carry;
                carry = (sum < before ? 1UL : 0) | (moved < sum ? 1UL : 0);
                _state[word] = moved | (before & ~hits);
            }
        }

        var left = 0;
        for (var word = 0; word < _state.Length; word++)
        {
            var used = word == _state.Length - 1 && _length % 64 != 0 ? (1UL << (_length % 64)) - 1 : ulong.MaxValue;
            left += BitOperations.PopCount(~_state[word] & used);
        }

        return left;
    }
}
