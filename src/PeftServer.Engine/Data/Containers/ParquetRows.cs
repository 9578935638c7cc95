using System.Collections;
using System.Globalization;
using System.Text.Json;
using System.Text.Json.Nodes;
using Parquet;
using Parquet.Serialization;

namespace PeftServer.Engine.Data.Containers;

/// <summary>Rows of an Apache Parquet file as JSON objects, a row group at a time. A row's line is its number, from 1.</summary>
internal static class ParquetRows
{
    public static IEnumerable<(long Line, JsonElement? Row)> Read(Stream stream, CancellationToken cancellationToken)
    {
        var groups = Wait(Groups(stream, cancellationToken));
        var line = 0L;
        for (var group = 0; group < groups; group++)
        {
            stream.Seek(0, SeekOrigin.Begin);
            var rows = Wait(ParquetSerializer.DeserializeUntypedAsync(stream, new ParquetOptions(), group, cancellationToken));
            foreach (var row in rows.Data)
            {
                cancellationToken.ThrowIfCancellationRequested();
                yield return (++line, JsonSerializer.SerializeToElement(Node(row)));
            }
        }
    }

    private static async Task<int> Groups(Stream stream, CancellationToken cancellationToken)
    {
        await using var reader = await ParquetReader.CreateAsync(stream, new ParquetOptions(), leaveStreamOpen: true, cancellationToken);
        return reader.RowGroupCount;
    }

    // Reading rows is synchronous everywhere; the file is local and the library waits for nothing else.
    private static T Wait<T>(Task<T> task) => task.GetAwaiter().GetResult();

    private static JsonNode? Node(object? value) => value switch
    {
        null => null,
        string text => text,
        bool flag => flag,
        byte or sbyte or short or ushort or int or uint or long => Convert.ToInt64(value, CultureInfo.InvariantCulture),
        float number => double.IsFinite(number) ? number : null,
        double number => double.IsFinite(number) ? number : null,
        IDictionary map => new JsonObject(map.Keys.Cast<object>()
            .Select(key => KeyValuePair.Create(Convert.ToString(key, CultureInfo.InvariantCulture)!, Node(map[key])))
            .Where(member => member.Value is not null)),
        byte[] bytes => Convert.ToBase64String(bytes),
        IEnumerable list => new JsonArray([.. list.Cast<object?>().Select(Node)]),
        _ => Convert.ToString(value, CultureInfo.InvariantCulture),
    };
}
