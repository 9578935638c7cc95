using System.Runtime.InteropServices;

namespace PeftServer.Engine.Tokenizers.Models;

/// <summary>What a pair becomes, and how early: lower ranks merge first.</summary>
internal readonly record struct Merge(int Rank, int Id)
{
    public static long Key(int left, int right) => ((long)left << 32) | (uint)right;
}

/// <summary>Merges the symbols of one word until no known pair is left.</summary>
internal static class BpeWord
{
    // Below this, looking through all pairs for the lowest rank is faster than keeping a heap.
    private const int HeapFrom = 48;

    public static void Merge(List<Token> symbols, Dictionary<long, Merge> merges, List<Token> result)
    {
        if (symbols.Count < HeapFrom)
        {
            MergeByScan(symbols, merges);
            result.AddRange(symbols);
        }
        else
        {
            MergeByHeap(symbols, merges, result);
        }
    }

    private static void MergeByScan(List<Token> symbols, Dictionary<long, Merge> merges)
    {
        Span<Merge> pairs = stackalloc Merge[HeapFrom];
        var all = CollectionsMarshal.AsSpan(symbols);
        var count = all.Length;
        for (var i = 0; i + 1 < count; i++)
        {
            pairs[i] = Find(merges, all[i].Id, all[i + 1].Id);
        }

        while (count > 1)
        {
            var best = 0;
            for (var i = 1; i + 1 < count; i++)
            {
                best = pairs[i].Rank < pairs[best].Rank ? i : best;
            }

            if (pairs[best].Rank == int.MaxValue)
            {
                break;
            }

            all[best] = new Token(pairs[best].Id, all[best].Start, all[best + 1].End);
            all[(best + 2)..count].CopyTo(all[(best + 1)..]);
            pairs[(best + 1)..(count - 1)].CopyTo(pairs[best..]);
            count--;
            if (best > 0)
            {
                pairs[best - 1] = Find(merges, all[best - 1].Id, all[best].Id);
            }

            if (best + 1 < count)
            {
                pairs[best] = Find(merges, all[best].Id, all[best + 1].Id);
            }
        }

        symbols.RemoveRange(count, symbols.Count - count);
    }

    private static void MergeByHeap(List<Token> symbols, Dictionary<long, Merge> merges, List<Token> result)
    {
        var all = CollectionsMarshal.AsSpan(symbols);
        var next = new int[all.Length];
        var previous = new int[all.Length];
        var removed = new bool[all.Length];
        var queue = new PriorityQueue<(int At, int Id), (int Rank, int At)>(all.Length);
        for (var i = 0; i < all.Length; i++)
        {
            (next[i], previous[i]) = (i + 1, i - 1);
            Enqueue(queue, merges, all, i, i + 1);
        }

        while (queue.TryDequeue(out var merge, out _))
        {
            var (at, id) = merge;
            var right = removed[at] ? all.Length : next[at];
            if (right >= all.Length || Find(merges, all[at].Id, all[right].Id) is not { Rank: < int.MaxValue } now || now.Id != id)
            {
                continue; // the pair has changed since it was queued
            }

            all[at] = new Token(id, all[at].Start, all[right].End);
            removed[right] = true;
            next[at] = next[right];
            if (next[at] < all.Length)
            {
                previous[next[at]] = at;
                Enqueue(queue, merges, all, at, next[at]);
            }

            if (previous[at] >= 0)
            {
                Enqueue(queue, merges, all, previous[at], at);
            }
        }

        for (var i = 0; i < all.Length; i = next[i])
        {
            result.Add(all[i]);
        }
    }

    private static void Enqueue(
        PriorityQueue<(int At, int Id), (int Rank, int At)> queue, Dictionary<long, Merge> merges, Span<Token> all, int left, int right)
    {
        if (right < all.Length && Find(merges, all[left].Id, all[right].Id) is { Rank: < int.MaxValue } found)
        {
            queue.Enqueue((left, found.Id), (found.Rank, left));
        }
    }

    private static Merge Find(Dictionary<long, Merge> merges, int left, int right) =>
        merges.TryGetValue(Models.Merge.Key(left, right), out var merge) ? merge : new Merge(int.MaxValue, -1);
}
