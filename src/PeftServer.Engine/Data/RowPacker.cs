namespace PeftServer.Engine.Data;

/// <summary>How documents share rows of a fixed length, by TRL's names.</summary>
public enum PackingStrategy
{
    /// <summary>Best fit, longest first; a document that is too long loses its end.</summary>
    Bfd,

    /// <summary>Best fit, longest first; a document that is too long is cut into pieces.</summary>
    BfdSplit,

    /// <summary>All documents in a row, cut every so many tokens.</summary>
    Wrapped,
}

/// <summary>A part of a document in a packed row.</summary>
public readonly record struct PackedPiece(int Document, int Start, int Length);

/// <summary>Packs documents into rows, so that little of a row is padding. Positions restart and attention ends at each piece.</summary>
public static class RowPacker
{
    /// <summary>The rows, each a list of pieces in order; no row is longer than <paramref name="rowLength"/> tokens.</summary>
    public static IReadOnlyList<IReadOnlyList<PackedPiece>> Pack(IReadOnlyList<int> lengths, int rowLength, PackingStrategy strategy)
    {
        ArgumentOutOfRangeException.ThrowIfLessThan(rowLength, 1);
        return strategy is PackingStrategy.Wrapped ? Wrap(lengths, rowLength) : BestFit(Pieces(lengths, rowLength, strategy), rowLength);
    }

    private static List<PackedPiece> Pieces(IReadOnlyList<int> lengths, int rowLength, PackingStrategy strategy)
    {
        var pieces = new List<PackedPiece>();
        for (var document = 0; document < lengths.Count; document++)
        {
            var end = strategy is PackingStrategy.Bfd ? Math.Min(lengths[document], rowLength) : lengths[document];
            for (var start = 0; start < end; start += rowLength)
            {
                pieces.Add(new PackedPiece(document, start, Math.Min(rowLength, end - start)));
            }
        }

        return pieces;
    }

    /// <summary>By falling length, ties in order, into the row with the least space that fits; among equals the one that got that space first.</summary>
    private static List<List<PackedPiece>> BestFit(List<PackedPiece> pieces, int rowLength)
    {
        var rows = new List<List<PackedPiece>>();
        var bySpace = new Queue<int>?[rowLength + 1]; // rows with so much space, in the order they got it
        foreach (var piece in pieces.OrderByDescending(p => p.Length))
        {
            var space = piece.Length;
            while (space <= rowLength && bySpace[space] is null or { Count: 0 })
            {
                space++;
            }

            if (space > rowLength)
            {
                space = rowLength;
                rows.Add([]);
                (bySpace[space] ??= new()).Enqueue(rows.Count - 1);
            }

            var row = bySpace[space]!.Dequeue();
            rows[row].Add(piece);
            (bySpace[space - piece.Length] ??= new()).Enqueue(row);
        }

        return rows;
    }

    private static List<List<PackedPiece>> Wrap(IReadOnlyList<int> lengths, int rowLength)
    {
        var rows = new List<List<PackedPiece>>();
        var space = 0;
        for (var document = 0; document < lengths.Count; document++)
        {
            for (int start = 0, length; start < lengths[document]; start += length)
            {
                if (space == 0)
                {
                    rows.Add([]);
                    space = rowLength;
                }

                length = Math.Min(space, lengths[document] - start);
                rows[^1].Add(new PackedPiece(document, start, length));
                space -= length;
            }
        }

        return rows;
    }
}
