namespace PeftServer.Engine.Kernels;

/// <summary>
/// How heads lie in rows of q, k and v; <paramref name="SideBySide"/>: the dimensions that turn together are neighbours, else half of those
/// that turn apart.
/// </summary>
internal readonly record struct HeadLayout(int QueryHeads, int KeyValueHeads, int HeadDim, bool SideBySide = false)
{
    /// <summary>How many dimensions of a head turn with the position: its first ones.</summary>
    public int Turning { get; init; } = HeadDim;

    /// <summary>Rows are [q₁ k₁ v₁ q₂ k₂ v₂ …] (GPT-NeoX, with as many heads of each), else [q | k | v].</summary>
    public bool HeadByHead { get; init; }

    public int QueryWidth => QueryHeads * HeadDim;

    public int KeyValueWidth => KeyValueHeads * HeadDim;

    public int Width => QueryWidth + (2 * KeyValueWidth);

    /// <summary>Where head <paramref name="index"/> of those that turn, the queries' and behind them the keys', begins in a row.</summary>
    public int Column(int index) => HeadDim * (!HeadByHead ? index : index < QueryHeads ? 3 * index : (3 * (index - QueryHeads)) + 1);

    /// <summary>Where head <paramref name="index"/> of the values begins in a row.</summary>
    public int ValueColumn(int index) => HeadDim * (HeadByHead ? (3 * index) + 2 : QueryHeads + KeyValueHeads + index);

    /// <summary>Rows [n, width] as their q [n, H, D], k and v [n, G, D]: views.</summary>
    public (Tensor Q, Tensor K, Tensor V) Split(Tensor rows)
    {
        if (HeadByHead)
        {
            using var heads = rows.view(-1, QueryHeads, 3, HeadDim);
            return (heads.select(2, 0), heads.select(2, 1), heads.select(2, 2));
        }

        return (Part(rows, 0, QueryHeads), Part(rows, QueryWidth, KeyValueHeads), Part(rows, QueryWidth + KeyValueWidth, KeyValueHeads));
    }

    private Tensor Part(Tensor rows, int column, int heads)
    {
        using var part = rows.narrow(1, column, heads * HeadDim);
        return part.view(-1, heads, HeadDim);
    }
}
