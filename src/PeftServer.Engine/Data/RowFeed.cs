using PeftServer.Engine.Tokenizers.ChatTemplates;

namespace PeftServer.Engine.Data;

/// <summary>Reads a file row by row; what cannot be read is skipped and accounted for, with its rule and remedy.</summary>
internal static class RowFeed
{
    /// <param name="stream">The file.</param>
    /// <param name="format">The format of its rows; absent: known by their fields.</param>
    /// <param name="account">Is told of rows that are skipped.</param>
    /// <param name="take">Is given every good row, and accounts for it.</param>
    /// <param name="cancellationToken">Ends the reading.</param>
    public static void Read(Stream stream, DatasetFormat? format, RowAccount account, Action<long, DatasetRow> take, CancellationToken cancellationToken)
    {
        var faults = new FaultList(0);
        foreach (var (line, row) in DatasetFile.ReadRows(stream, faults, format, cancellationToken))
        {
            if (row is null)
            {
                account.Skip(line, faults.TakeNext()!.Text);
                continue;
            }

            try
            {
                take(line, row);
            }
            catch (TemplateException e)
            {
                account.Skip(line, $"The chat template refuses the row: {e.Message}");
            }
        }
    }
}
