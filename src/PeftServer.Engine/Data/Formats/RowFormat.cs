using System.Text.Json;

namespace PeftServer.Engine.Data.Formats;

/// <summary>Reads rows of one format.</summary>
internal abstract class RowFormat(DatasetFormat format)
{
    public DatasetFormat Format { get; } = format;

    /// <summary>Fields that rows of this format have, the telling one first.</summary>
    public abstract IReadOnlyList<string> Fields { get; }

    /// <summary>Whether a row is meant to be of this format, good or not.</summary>
    public virtual bool Recognises(JsonElement row) => row.TryGetProperty(Fields[0], out _);

    /// <summary>The row; null where it has a fault, which is told.</summary>
    public abstract DatasetRow? Read(RowScope row);
}
