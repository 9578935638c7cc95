namespace PeftServer.Engine.Tokenizers.Models;

/// <summary>
/// Remembers what words come to. Bounded: a word takes the slot of the word before it there. Threads share it without locks,
/// since an entry is immutable and a slot is written in one piece.
/// </summary>
internal sealed class WordCache<T>
{
    private const int Slots = 1 << 15;
    private const int LongestWord = 48;

    private readonly Entry?[] _entries = new Entry?[Slots];

    public bool TryGet(ReadOnlySpan<char> word, out T[] value)
    {
        if (word.Length <= LongestWord && _entries[SlotOf(word)] is { } entry && word.SequenceEqual(entry.Word))
        {
            value = entry.Value;
            return true;
        }

        value = [];
        return false;
    }

    public void Set(ReadOnlySpan<char> word, T[] value)
    {
        if (word.Length <= LongestWord)
        {
            _entries[SlotOf(word)] = new Entry(word.ToString(), value);
        }
    }

    private static int SlotOf(ReadOnlySpan<char> word) => string.GetHashCode(word) & (Slots - 1);

    private sealed record Entry(string Word, T[] Value);
}
