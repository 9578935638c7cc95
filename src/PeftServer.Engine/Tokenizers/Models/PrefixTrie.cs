namespace PeftServer.Engine.Tokenizers.Models;

/// <summary>Strings with a number each, walked a character at a time. Nodes are numbers; the root is 0.</summary>
internal sealed class PrefixTrie
{
    private readonly Dictionary<long, int> _next = [];
    private readonly List<int> _values = [-1];

    public void Add(string key, int value)
    {
        var node = 0;
        foreach (var c in key)
        {
            var edge = Edge(node, c);
            if (!_next.TryGetValue(edge, out var next))
            {
                next = _values.Count;
                _values.Add(-1);
                _next[edge] = next;
            }

            node = next;
        }

        _values[node] = value;
    }

    /// <summary>The node that <paramref name="c"/> leads to; 0 where it leads nowhere.</summary>
    public int Next(int node, char c) => _next.GetValueOrDefault(Edge(node, c));

    /// <summary>The number of the string that ends here, or −1.</summary>
    public int ValueOf(int node) => _values[node];

    private static long Edge(int node, char c) => ((long)node << 16) | c;
}
