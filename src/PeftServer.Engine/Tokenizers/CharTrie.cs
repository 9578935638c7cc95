using System.Buffers;
using System.Diagnostics.CodeAnalysis;

namespace PeftServer.Engine.Tokenizers;

/// <summary>Strings with a value each, found in a text by leftmost-longest match.</summary>
internal sealed class CharTrie<T>
    where T : class
{
    private readonly Node _root = new();
    private SearchValues<char>? _first; // what keys begin with, made at the first search

    /// <summary>Adds a key; all are added before the first search.</summary>
    public void Add(ReadOnlySpan<char> key, T value)
    {
        var node = _root;
        foreach (var c in key)
        {
            node.Children ??= [];
            if (!node.Children.TryGetValue(c, out var child))
            {
                node.Children[c] = child = new Node();
            }

            node = child;
        }

        node.Value = value;
    }

    public bool FindNext(ReadOnlySpan<char> text, int from, out int start, out int end, [NotNullWhen(true)] out T? value)
    {
        if (_root.Children is { } children)
        {
            var first = _first ??= SearchValues.Create([.. children.Keys]);
            for (start = from; text[start..].IndexOfAny(first) is >= 0 and var found; start++)
            {
                start += found;
                if (LongestAt(text, start, out end, out value))
                {
                    return true;
                }
            }
        }

        (start, end, value) = (0, 0, null);
        return false;
    }

    private bool LongestAt(ReadOnlySpan<char> text, int start, out int end, [NotNullWhen(true)] out T? value)
    {
        (end, value) = (0, null);
        var node = _root;
        for (var i = start; i < text.Length && node.Children is not null && node.Children.TryGetValue(text[i], out node!); i++)
        {
            if (node.Value is not null)
            {
                (end, value) = (i + 1, node.Value);
            }
        }

        return value is not null;
    }

    private sealed class Node
    {
        public Dictionary<char, Node>? Children;
        public T? Value;
    }
}
