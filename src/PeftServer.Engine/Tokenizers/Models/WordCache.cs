namespace PeftServer.Engine.Tokenizers.Models;

/// <summary>
/// Remembers what words come to. Bounded: a word has four places it may be in and takes one of another word when all are
/// full. Threads share it without locks, since an entry is immutable and a place is written in one piece.
/// </summary>
internal sealed class WordCache<T>
{
    private const int Places = 1 << 17;
    private const int Ways = 4;
    private const int LongestWord = 48;

    private readonly Entry?[] _entries = new Entry?[Places];

    public bool TryGet(ReadOnlySpan<char> word, out T[] value)
    {
        if (word.Length <= LongestWord)
        {
            var hash = string.GetHashCode(word);
            foreach (var entry in SetOf(hash))
            {
                if (entry is not null && entry.Hash == hash && word.SequenceEqual(entry.Word))
                {
                    value = entry.Value;
                    return true;
                }
            }
        }

        value = [];
        return false;
    }

    public void Set(ReadOnlySpan<char> word, T[] value)
    {
        if (word.Length > LongestWord)
        {
            return;
        }

        var hash = string.GetHashCode(word);
        var set = SetOf(hash);
        var free = set.IndexOf((Entry?)null);
        set[free >= 0 ? free : (hash >>> 24) & (Ways - 1)] = new Entry(hash, word.ToString(), value);
    }

    private Span<Entry?> SetOf(int hash) => _entries.AsSpan((hash & ((Places / Ways) - 1)) * Ways, Ways);

    private sealed record Entry(int Hash, string Word, T[] Value);
}
